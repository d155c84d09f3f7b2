"""An index before any training: of a folder without captions, and held against chance where there are some."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image

import cots
from cots.cli import pipeline
from cots.cli.index import _has_params_for
from cots.config.gate import GateConfig
from cots.config.params import Params
from cots.errors import BadInput, RunFailed
from cots.models.dual_encoder import DualEncoder
from cots.refresh import VALIDATION, refresh
from cots.registry.challenger import ChallengerEvaluator
from cots.registry.client import INDEX
from cots.registry.gate import AboveChance, decide_first
from cots.registry.registry import Registry
from cots.stages import prepare
from cots.zero_shot import publish_zero_shot
from tests.conftest import Cots, ranked
from tests.deployed import register
from tests.two_towers import PATCH, SIZE, save_transformers_clip

ROOT = Path(__file__).parents[1]
TEST_ITEMS = 40
MODEL = {"prepare": {"size": SIZE}, "image": {"size": SIZE, "patch": PATCH}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of CLIP that was never trained."""
    return save_transformers_clip(tmp_path_factory.mktemp("start") / "clip").path


def write_images(folder: Path, captions: Callable[[int], str] | None = None) -> Path:
    """Images of noise; those with captions are the test split, but for one."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(TEST_ITEMS + 1):
        Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(folder / f"{number}.png")
    if captions:
        rows = [f"{n}.png,{captions(n)},{'val' if n < TEST_ITEMS else 'train'}" for n in range(TEST_ITEMS + 1)]
        (folder / "captions.csv").write_text("\n".join(["image,caption,split", *rows]) + "\n")
    return folder


def prepared(project: Path, source: Path, clip: Path) -> Params:
    """Run stage `prepare`; the parameters of a project that starts from the checkpoint."""
    content = Params.load(ROOT / "params.yaml").dump_all()
    content["source"] = {"kind": "folder", "path": str(source)}
    content["prepare"] |= MODEL["prepare"]
    content["evaluate"]["split"] = "val"
    content["model"] |= {"init_from": str(clip), "image": content["model"]["image"] | MODEL["image"]}
    content["finetune"]["image-text"]["size"] = SIZE
    params = Params.model_validate(content)
    data = project / "data"
    tables = (data / "manifest.parquet", data / "rejected.parquet")
    prepare.stage(source, ROOT / "withdrawn.csv", data / "shards", *tables, params=params)
    return params


@pytest.mark.slow
def test_a_folder_without_captions_is_searched_and_a_training_must_beat_it(
    store: str, tmp_path: Path, clip: Path, other_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = prepared(tmp_path, write_images(tmp_path / "images"), clip)
    result = publish_zero_shot(params)
    first = "it is the first version; nothing was measured, because the test split has no captions"
    assert (result.version, result.champion, result.reasons) == (1, True, first)
    index = cots.load_index(f"models:/{INDEX}@champion")
    [best, *_] = index.search(tmp_path / "images" / "7.png")
    assert (best["id"], best["captions"]) == ("7.png", [])
    artifacts = Registry().get_artifacts(1)
    assert artifacts.load_training_ids() == set()
    assert artifacts.load_params()["pretrain"]["steps"] == 0
    assert Registry().get_version(1).lineage()["init_from"]["1.name"] == str(clip)
    again = publish_zero_shot(params)
    assert (again.version, again.new) == (1, False)

    evaluated: list[DualEncoder] = []

    def rank_queries(champion: DualEncoder) -> pd.DataFrame:
        evaluated.append(champion)
        return ranked(60.0)

    trained = register(Registry(), other_package, rank_queries)
    assert [model.digest for model in evaluated] == [cots.load(f"models:/{INDEX}/1").digest]
    assert (trained.version, trained.champion) == (2, False)
    assert "50.0 % vs champion 60.0" in trained.reasons


@pytest.mark.slow
def test_new_images_of_a_folder_without_captions_are_indexed_without_a_validation(
    store: str, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_images(tmp_path / "images")
    publish_zero_shot(prepared(tmp_path, source, clip))
    assert not Registry().needs_validation()
    Image.new("RGB", (SIZE, SIZE), "red").save(source / "red.png")
    result = refresh(prepared(tmp_path, source, clip))
    assert result
    assert (result.version, result.champion) == (2, True)
    assert Registry().get_artifacts(2).load_item_ids() - Registry().get_artifacts(1).load_item_ids() == {"red.png"}


@pytest.mark.slow
def test_a_first_version_at_chance_is_registered_and_not_deployed(
    store: str, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, cots: Cots
) -> None:
    monkeypatch.chdir(tmp_path)
    params = prepared(tmp_path, write_images(tmp_path / "images", lambda number: f"a red star {number}"), clip)
    validation = tmp_path / "reports" / "validation"
    validation.mkdir(parents=True)
    (validation / "summary.json").write_text('{"success": true, "overview": {"rejected": {}}, "checks": []}')
    result = publish_zero_shot(params)
    assert (result.version, result.champion) == (1, False)
    assert "is not clearly above the 25.0 % of chance" in result.reasons
    _, listed, _ = cots("registry", "list")
    assert "challenger" in listed
    assert "of chance" in listed
    _, promoted, _ = cots("registry", "promote", "--version", 1, "--reason", "to look at it")
    assert "version 1 is the champion" in promoted


def test_the_first_version_is_deployed_if_it_is_above_chance_or_nothing_can_be_shown() -> None:
    rules, above, at = GateConfig(), AboveChance(40.0, 31.0, 49.8, 10.0), AboveChance(12.0, 7.0, 19.8, 10.0)
    assert decide_first({"i2t": above, "t2i": above}, 100, rules).promote
    assert decide_first({"i2t": at, "t2i": at}, rules.min_test_items - 1, rules).promote
    refused = decide_first({"i2t": above, "t2i": at}, 100, rules)
    assert not refused.promote
    assert refused.reasons == (
        "R@10 of text to image 12.0 % (95 % CI 7.0 to 19.8) is not clearly above the 10.0 % of chance",
    )


@pytest.mark.parametrize(("recall", "promoted"), [(40.0, True), (12.0, False)])
def test_chance_is_that_of_the_queries_own_candidates(tmp_path: Path, recall: float, promoted: bool) -> None:
    """Of 200 captions two are right: about 9.8 % of the images would find one among ten by chance."""
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    ranked(recall).to_parquet(evidence / "queries.parquet")
    decision = ChallengerEvaluator(GateConfig(), lambda model: pd.DataFrame()).decide_first(tmp_path)
    assert decision.promote == promoted


def test_encoders_that_were_never_trained_together_are_refused_in_one_line(
    cots: Cots, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, _, err = cots("index", tmp_path, "--encoders", "dinov2-minilm")
    assert code == 2
    assert err.startswith("error: the encoders dinov2-minilm were never trained together")
    assert "clip-b32" in err
    params = Params.load(ROOT / "params.yaml")
    with pytest.raises(
        BadInput, match="model.init_from is null: the vectors of encoders that were never trained together"
    ):
        publish_zero_shot(params, tmp_path)


@pytest.mark.parametrize("summary", [None, '{"success": true}', '{"success": false}'])
def test_data_are_indexed_without_passing_validation_but_not_without_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, summary: str | None
) -> None:
    """A stage that did not come so far leaves the summary of earlier data, which may have passed."""

    def reproduce(stage: str) -> None:
        raise RunFailed(f"{stage} ended with exit code 1")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "reproduce", reproduce)
    if summary:
        VALIDATION.mkdir(parents=True)
        (VALIDATION / "summary.json").write_text(summary)
    with nullcontext() if summary and "false" in summary else pytest.raises(RunFailed, match="validate ended"):
        import_module("cots.cli.index")._validate()  # the package has the command under this name


@pytest.mark.slow
def test_a_model_that_cannot_be_had_is_told_before_the_images_are_read(
    cots: Cots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("cots.models.two_tower.loading.snapshot_download", no_network)
    images = write_images(tmp_path / "images")
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    code, _, err = cots("index", images, "--encoders", "clip-b32")
    assert code == 2
    assert "error: no checkpoint openai/clip-vit-base-patch32: no such folder" in err
    assert err.rstrip().endswith("without a network, give a model's folder")
    assert not (project / "data").exists()


def test_a_folder_and_a_model_are_the_same_by_any_path(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Params.load(ROOT / "params.yaml").dump_all()
    content["source"] = {"kind": "folder", "path": str(tmp_path / "images")}
    content["model"] |= {"init_from": str(clip)}
    (tmp_path / "params.yaml").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    assert _has_params_for(Path("images"), None)
    assert _has_params_for(Path("images"), os.path.relpath(clip))
    assert not _has_params_for(Path("images"), "clip-b32")
    assert not _has_params_for(Path("others"), str(clip))
