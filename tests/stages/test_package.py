import base64
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cots.config.params import Params
from cots.digests import content_digest, file_digest
from cots.errors import BadInput
from cots.import_closure import import_closure
from cots.models.dual_encoder import DualEncoder
from cots.registry.cards import DATA_CARD, MODEL_CARD
from cots.registry.packaging import REQUIREMENTS, save_index
from cots.stages.package import inference_config, stage
from tests.hits import up_to_rounding

ROOT = Path(__file__).parents[2]
COLOURS = ["red", "green", "blue", "yellow", "white", "black"]


@pytest.fixture(scope="session")
def index_model(tiny_package: Path) -> Any:
    return mlflow.pyfunc.load_model(str(tiny_package / "index"))


@pytest.fixture(scope="session")
def encoders_model(tiny_package: Path) -> Any:
    return mlflow.pyfunc.load_model(str(tiny_package / "encoders"))


def encoded(colour: str, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("name", ["encoders", "index"])
def test_a_packed_model_carries_the_code_that_it_needs_and_no_other(name: str, tiny_package: Path) -> None:
    code = tiny_package / name / "code"
    carried = {str(file.relative_to(code)) for file in code.rglob("*.py")}
    needed = import_closure([f"cots.registry.pyfunc_{name}"], ROOT)
    assert carried == {str(file.relative_to(ROOT)) for file in needed.values()}
    assert ("cots/search_engine/engine.py" in carried) == (name == "index")
    assert not [file for file in carried if "stages" in file or "training" in file or "service/" in file]


def test_an_indexed_image_finds_itself_first(index_model: Any) -> None:
    [results] = index_model.predict(pd.DataFrame({"image": [encoded("blue")], "k": [3]}))
    assert results[0]["id"] == "blue"
    assert results[0]["score"] == pytest.approx(1, abs=1e-3)
    assert results[0]["captions"] == ["a blue square", "a square"]
    assert results[0]["media"] == "image"
    assert results[0]["split"] == "test"
    assert results[0]["frame"] == 0
    assert [result["rank"] for result in results] == [1, 2, 3]
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)


def test_the_signature_names_the_fields_of_a_result(index_model: Any) -> None:
    [[result]] = index_model.predict(["blue"], params={"k": 1})
    [rows] = index_model.metadata.signature.outputs.to_dict()
    assert rows["items"]["properties"].keys() == result.keys()
    assert rows["items"]["properties"]["frame"] == {"type": "long", "required": True}


def test_a_list_of_texts_gets_one_ranking_each(index_model: Any, tiny_model: Path, tiny_index: Path) -> None:
    rankings = index_model.predict(["a red square", "blue"], params={"k": 6})
    model = DualEncoder.load(tiny_model)
    images = model.encode_images([Image.new("RGB", (40, 32), colour) for colour in COLOURS], batch_size=6)
    similarities = model.encode_texts(["a red square", "blue"], batch_size=2) @ images.T
    for ranked, row in zip(rankings, similarities, strict=True):
        assert [result["score"] for result in ranked] == pytest.approx(sorted(row.tolist(), reverse=True), abs=1e-3)
        assert {result["id"] for result in ranked} == set(COLOURS)


def test_texts_and_images_may_be_mixed_in_one_table(index_model: Any) -> None:
    table = pd.DataFrame(
        {
            "text": ["a red square", None, None],
            "image": [None, encoded("green"), base64.b64encode(encoded("black", "JPEG")).decode()],
            "k": [2, 1, 4],
        }
    )
    rankings = index_model.predict(table)
    assert [len(results) for results in rankings] == [2, 1, 4]
    assert [results[0]["id"] for results in rankings[1:]] == ["green", "black"]
    assert rankings[0] == up_to_rounding(index_model.predict(["a red square"], params={"k": 2})[0])


def test_a_query_says_what_kind_it_looks_for_by_column_or_parameter(index_model: Any) -> None:
    # Three queries in all: the captions score so alike that another batch size ranks them otherwise.
    table = pd.DataFrame({"text": ["a red square"] * 3, "k": [9] * 3, "media": ["text", "video", None]})
    texts, videos, everything = index_model.predict(table)
    assert {hit["media"] for hit in texts} == {"text"}
    assert len(texts) == len(COLOURS) + 1
    assert videos == []
    assert everything == up_to_rounding(index_model.predict(["a red square"] * 3, params={"k": 9})[0])
    assert texts == up_to_rounding(index_model.predict(["a red square"] * 3, params={"k": 9, "media": "text"})[0])


def test_more_results_than_items_gives_every_item(index_model: Any) -> None:
    assert len(index_model.predict(["a square"], params={"k": 1000})[0]) == len(COLOURS)


def test_no_query_gets_no_answer(index_model: Any) -> None:
    assert index_model.predict([]) == []


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (["fine", "  "], "query 1: the text is blank"),
        (["\ud800"], "query 0: the text is not UTF-8"),
        ([3], "query 0: the text is int"),
        (pd.DataFrame({"image": [b"not a picture"]}), "query 0: the image cannot be used: not a picture"),
        (pd.DataFrame({"image": [encoded("red")[:60]]}), "query 0: the image cannot be used"),
        (pd.DataFrame({"image": [encoded("red", "BMP") + b"" for _ in range(0)] or [b""]}), "empty file"),
        (pd.DataFrame({"image": ["%%%"]}), "query 0: the image is text that is not base64"),
        (pd.DataFrame({"text": ["a"], "image": [encoded("red")]}), "either a text or an image"),
        (pd.DataFrame({"text": [None]}), "either a text or an image"),
        (pd.DataFrame({"text": ["a"], "k": [0]}), "k must be a whole number from 1, not 0"),
        (pd.DataFrame({"txt": ["a"], "k": [1]}), "unknown query column txt: allowed are text, image, k, media"),
        (pd.DataFrame({"text": ["a"], "media": ["audio"]}), "media must be one of any, image, video, text, not audio"),
        ("a red square", "list of texts or a table"),
    ],
)
def test_a_query_that_cannot_be_one_is_refused_with_its_row(index_model: Any, queries: object, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        index_model.predict(queries)
    assert "\n" not in str(error.value)


def test_encoders_give_the_vectors_of_the_model_they_hold(encoders_model: Any, tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    texts = ["a red square", "a square", "blue"]
    np.testing.assert_allclose(encoders_model.predict(texts), model.encode_texts(texts, batch_size=3), atol=1e-5)
    mixed = encoders_model.predict(pd.DataFrame({"text": ["blue", None], "image": [None, encoded("red")]}))
    np.testing.assert_allclose(mixed[0], model.encode_texts(["blue"], batch_size=1)[0], atol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-3)


def test_what_the_packaged_code_imports_is_declared() -> None:
    import grimp

    graph = grimp.build_graph("cots", include_external_packages=True)
    modules = {"cots.registry.pyfunc_index", "cots.registry.pyfunc_encoders"}
    closure = modules | {up for module in modules for up in graph.find_upstream_modules(module)}
    outside = {name for name in closure if not name.startswith("cots")} - set(sys.stdlib_module_names)
    outside -= {"s3fs", "fsspec"}  # only of a package whose index or encoders are kept in a bucket
    distributions = {"PIL": "pillow", "faiss": "faiss-cpu"}
    needed = {distributions.get(name, name) for name in outside}
    assert {"torch", "faiss-cpu", "pillow"} <= needed <= set(REQUIREMENTS)


def test_requirements_are_exact_and_carry_no_local_part(tiny_package: Path) -> None:
    lines = (tiny_package / "index" / "requirements.txt").read_text().splitlines()
    assert sorted(line.partition("==")[0] for line in lines) == sorted(REQUIREMENTS)
    assert all("==" in line and "+" not in line for line in lines)


def test_packing_the_same_again_gives_the_same_content(tiny_package: Path, tiny_model: Path, tmp_path: Path) -> None:
    params = Params.load(ROOT / "params.yaml")
    limits = inference_config(params)
    cards = {name: (tiny_package / "index" / name).read_text() for name in (MODEL_CARD, DATA_CARD)}
    index = shutil.copytree(tiny_package.parent / "index", tmp_path / "index")
    measured = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps(measured | {"ms_per_query": 99.0}))  # on a busy machine
    save_index(tmp_path / "again", tiny_model, index, config=limits, cards=cards)
    assert content_digest(tmp_path / "again") == content_digest(tiny_package / "index")
    assert (tmp_path / "again" / "MLmodel").read_text() != (tiny_package / "index" / "MLmodel").read_text()


def test_other_weights_give_other_content(tiny_package: Path, other_package: Path) -> None:
    for part in ("encoders", "index"):
        assert content_digest(tiny_package / part) != content_digest(other_package / part)


def test_lineage_names_everything_a_version_came_from(tiny_package: Path, tiny_model: Path) -> None:
    lineage = json.loads((tiny_package / "lineage.json").read_text())
    project = tiny_package.parent
    assert lineage["encoder.digest"] == DualEncoder.load(tiny_model).digest
    assert lineage["index.digest"] == file_digest(project / "index" / "index.faiss")
    assert lineage["manifest.digest"] == file_digest(project / "data" / "manifest.parquet")
    assert lineage["index.content"] == content_digest(tiny_package / "index")
    assert lineage["items"] == len(COLOURS)
    assert lineage["metrics"]["image-text"]["rsum"] == 240


def test_an_index_of_other_encoders_refuses_to_load(tiny_package: Path, other_model: Path, tmp_path: Path) -> None:
    forged = shutil.copytree(tiny_package / "index", tmp_path / "forged")
    shutil.copytree(other_model, forged / "artifacts" / "image-text", dirs_exist_ok=True)
    (forged / "artifacts.sha256").unlink()
    with pytest.raises(BadInput, match="embeddings of different encoders cannot be compared"):
        mlflow.pyfunc.load_model(str(forged))


def without_the_target(project: Path) -> None:
    (project / "reports" / "metrics.json").write_text(json.dumps({"video-text": {}}))


def without_metrics(project: Path) -> None:
    (project / "reports" / "metrics.json").unlink()


def with_other_encoders(project: Path) -> None:
    about = json.loads((project / "index" / "index.json").read_text())
    (project / "index" / "index.json").write_text(json.dumps(about | {"encoder": "0" * 64}))


def with_half_an_index(project: Path) -> None:
    whole = (project / "index" / "index.faiss").read_bytes()
    (project / "index" / "index.faiss").write_bytes(whole[: len(whole) // 2])


def without_validation(project: Path) -> None:
    (project / "reports" / "validation" / "summary.json").unlink()


def without_queries(project: Path) -> None:
    (project / "reports" / "evaluation" / "image-text.parquet").unlink()


def without_frames(project: Path) -> None:
    (project / "index" / "frames.safetensors").unlink()


def with_an_item_less(project: Path) -> None:
    items = pd.read_parquet(project / "index" / "items.parquet")
    items.iloc[1:].to_parquet(project / "index" / "items.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_metrics, "cannot read .*metrics.json.*: run `dvc repro evaluate`"),
        (without_validation, "cannot read .*summary.json.*: run `dvc repro validate`"),
        (without_queries, "cannot read test queries"),
        (without_the_target, "metrics.json has no metrics of image-text"),
        (with_other_encoders, "built by encoders 000000000000"),
        (with_half_an_index, "is damaged"),
        (without_frames, "no frame embeddings .*: run `dvc repro --force index`"),
        (with_an_item_less, "contains 6 vectors for 5 items"),
    ],
)
def test_what_does_not_fit_together_is_not_packed(
    tiny_package: Path, tiny_model: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    project = tmp_path / "project"
    for part in ("index", "reports", "data"):
        shutil.copytree(tiny_package.parent / part, project / part)
    damage(project)
    with pytest.raises(BadInput, match=message):
        stage(
            tiny_model,
            project / "index",
            project / "reports" / "metrics.json",
            project / "reports" / "evaluation",
            project / "reports" / "validation",
            project / "data" / "manifest.parquet",
            project / "package",
            params=Params.load(ROOT / "params.yaml"),
        )
    assert not (project / "package" / "lineage.json").exists()


def test_the_code_beside_a_model_is_this_package_s_where_others_lie_beside_it(tmp_path: Path) -> None:
    for name, text in (("mine", "import other\nfrom mine import part\n"), ("other", "from . import part\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
        (tmp_path / name / "part.py").write_text("")
    assert set(import_closure(["mine"], tmp_path)) == {"mine", "mine.part"}
