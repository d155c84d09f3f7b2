"""Languages, labels, shared layers, documents: each resumes to the bit, is published, promoted and served.

Switched off, they change nothing.
"""

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from cots.config.params import Params
from cots.config.renamed import dump_for_fingerprint
from cots.curves import loss_column
from cots.data.manifest import read_manifest
from cots.data.pairs import drop_rates
from cots.models.dual_encoder import DualEncoder
from cots.registry.registry import Registry
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query
from cots.stages import index, package
from cots.tracking.loading import load_encoders
from tests.additions import ADDITIONS, LEVELS, write_annotated
from tests.conftest import tracked_in
from tests.deployed import register
from tests.hits import up_to_rounding
from tests.kill_points import contents
from tests.service.conftest import Served, serving
from tests.training.conftest import killed_at, run, tiny_params

pytestmark = pytest.mark.slow

LOSSES = {
    "languages": ["translation"],
    "labels": [],
    "shared layers": ["within_modality"],
    "documents": ["class_contrast", "classification"],
}
TIMES = ["pairs_per_second", "utilisation", "data_wait"]  # columns of the curves that no two runs have in common


def curves(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "report/curves.csv").drop(columns=TIMES)


@pytest.fixture(scope="module")
def whole(annotated_data: Path, tokenized: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What an uninterrupted run with each addition leaves; not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    with chdir(folder):
        return {
            name: run(annotated_data, tokenized, folder / name, tiny_params(**changes))
            for name, changes in ADDITIONS.items()
        }


@pytest.mark.parametrize("name", ADDITIONS)
def test_a_killed_run_ends_with_the_model_of_an_uninterrupted_one(
    name: str,
    whole: dict[str, Path],
    annotated_data: Path,
    tokenized: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    params = tiny_params(**ADDITIONS[name])
    with killed_at(3):
        run(annotated_data, tokenized, tmp_path / "killed", params)
    resumed = run(annotated_data, tokenized, tmp_path / "resumed", params)
    assert contents(resumed / "model") == contents(whole[name] / "model")
    pd.testing.assert_frame_equal(curves(resumed), curves(whole[name]))
    pairs, right = (pd.read_parquet(out / "report/pairs.parquet") for out in (resumed, whole[name]))
    pd.testing.assert_frame_equal(pairs, right)
    assert (curves(resumed)[[*map(loss_column, LOSSES[name])]] > 0).all(axis=None)
    if name == "labels":
        assert drop_rates(pairs, read_manifest(annotated_data / "manifest.parquet"))["made"].rate > 0


@pytest.fixture(scope="module")
def published(
    whole: dict[str, Path], annotated_data: Path, tiny_package: Path, empty_store: Path, tmp_path_factory: Any
) -> Iterator[dict[str, tuple[int, SearchEngine]]]:
    """A registry of a model with each addition: its version, and the search that its index gives without a registry."""
    folder, manifest = tmp_path_factory.mktemp("published"), annotated_data / "manifest.parquet"
    reports = tiny_package.parent / "reports"
    measured = (reports / "metrics.json", reports / "evaluation", reports / "validation")
    versions = {}
    with tracked_in(Path(shutil.copy(empty_store, folder / "mlflow.db"))), chdir(folder):
        for name, changes in ADDITIONS.items():
            params, model, out = tiny_params(**changes), whole[name] / "model", folder / name
            index.stage(annotated_data / "shards", manifest, model, out / "index", params=params)
            package.stage(model, out / "index", *measured, manifest, out / "package", params=params)
            version = register(Registry(), out / "package").version
            versions[name] = version, SearchEngine.load(model, out / "index")
        yield versions


@pytest.fixture(scope="module")
def served(published: dict[str, tuple[int, SearchEngine]]) -> Iterator[Served]:
    with serving("models:/cots-index@champion") as served:
        yield served


def square(colour: str) -> tuple[Image.Image, str]:
    """An image, and the same as a request has it."""
    image, file = Image.new("RGB", (40, 32), colour), io.BytesIO()
    image.save(file, "PNG")
    return image, base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("name", ADDITIONS)
def test_a_version_is_promoted_and_the_service_answers_as_a_search_without_it(
    name: str, published: dict[str, tuple[int, SearchEngine]], served: Served
) -> None:
    version, engine = published[name]
    Registry().promote(version, why="it is its turn")
    served.until(lambda: served.client.get("/readyz").json()["versions"]["index"]["version"] == str(version))
    registered = load_encoders(f"models:/cots-index/{version}")
    assert registered.classes == (("cold", "warm") if name == "documents" else ())
    assert (registered.text.shared is not None) == (name == "shared layers")
    image, encoded = square("blue")
    warm = (("class", ("warm",)),)
    for query, request in (
        (Query("ein Quadrat in blue", 30), {"text": "ein Quadrat in blue"}),
        (Query("something warm", 30, "image"), {"text": "something warm", "media": "image"}),
        (Query("something warm", 1, "text"), {"text": "something warm", "media": "text", "k": 1}),
        (Query(image, 30, "text"), {"image": encoded, "media": "text"}),
        (Query("a red square in val", 30, where=warm), {"text": "a red square in val", "where": {"class": ["warm"]}}),
    ):
        answer = served.search(**{"k": 30} | request)
        assert answer["versions"]["index"]["version"] == str(version)
        [expected] = engine([query], batch_size=1)
        shown = [{key: hit[key] for key in expected[0]} for hit in answer["results"]]
        assert shown == up_to_rounding(expected)
        if query.where:
            assert {hit["metadata"]["class"] for hit in answer["results"]} == {"warm"}
        if (query.content, query.media) == ("something warm", "text"):
            [hit] = answer["results"]
            assert (hit["captions"], hit["score"]) == (["something warm"], pytest.approx(1, abs=1e-3))
            assert hit["id"].startswith("train-")


OFF: dict[str, dict[str, Any]] = {
    "model": {"shared_blocks": 0},
    "pretrain": {"captions_per_sample": 1, "language_temperature": 1.0},
    "objective": {
        "loss_weights": LEVELS
        | dict.fromkeys(("within_modality", "translation", "class_contrast", "classification"), 0)
    },
}


def test_switched_off_they_change_no_loss_and_leave_nothing_in_the_model(
    tiny_data: Path, annotated_data: Path, tokenized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params, plain = tiny_params(pretrain={"steps": 20}, objective={"loss_weights": LEVELS}), tmp_path / "plain"
    off: Params = tiny_params(**OFF | {"pretrain": OFF["pretrain"] | {"steps": 20}})
    assert off.model == params.model
    fingerprints = [dump_for_fingerprint(each.pretrain, "pretrain") for each in (params, off)]
    assert fingerprints[0] == fingerprints[1]
    untagged = write_annotated(tiny_data, plain / "data", tagged=False)
    without = run(untagged, tokenized, plain, params)
    beside = run(annotated_data, tokenized, tmp_path / "beside", off)
    pd.testing.assert_frame_equal(curves(beside), curves(without))
    assert contents(beside / "model") == contents(without / "model")
    model = DualEncoder.load(beside / "model")
    assert (model.image.shared, model.text.shared, model.class_head) == (None, None, None)
    assert not {"shared_blocks", "classifier"} & model.config.keys()
