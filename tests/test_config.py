"""`params.yaml`: every mistake is told at once, with its path."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cots.config import Params
from cots.errors import BadInput

ROOT = Path(__file__).parents[1]


def refused(tmp_path: Path, values: object) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BadInput) as told:
        Params.load(path)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return loaded


def test_all_unknown_missing_and_wrong_keys_are_told_in_one_line(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["stpes"] = 3
    values["indx"] = {}
    values["prepare"]["max_rejected"] = 1.5
    del values["tokenize"]["views"]
    told = refused(tmp_path, values)
    for path in ("pretrain.stpes", "indx", "prepare.max_rejected", "tokenize.views"):
        assert path in told
    assert "4 mistake(s)" in told


def test_rules_across_fields_name_both_values(tmp_path: Path, values: dict[str, Any]) -> None:
    values["model"]["image"] |= {"size": 60, "patch": 8}
    assert "60 is not a multiple of patch 8" in refused(tmp_path, values)


def test_a_deployed_target_must_be_trained(tmp_path: Path, values: dict[str, Any]) -> None:
    del values["finetune"]["image-text"]
    assert "'image-text' is not among finetune" in refused(tmp_path, values)


def test_a_run_that_would_learn_nothing_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"]["weights"] = {"instance": 0, "token": 0, "task": 0, "masked_views": 0}
    assert "nothing would be learnt" in refused(tmp_path, values)


def test_parts_are_refused_where_negatives_have_a_gradient(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"] |= {"parts": 4}
    values["pretrain"]["objective"] |= {"batch_negatives": "queries"}
    assert "needs its batch whole" in refused(tmp_path, values)


def test_tokens_are_refused_at_another_size_than_they_were_made_for(tmp_path: Path, values: dict[str, Any]) -> None:
    run = values["finetune"]["image-text"]
    run |= {
        "size": 96,
        "objective": run["objective"] | {"weights": {"instance": 1, "token": 1, "task": 0, "masked_views": 0}},
    }
    assert "tokens are those of 64 pixels, size is 96" in refused(tmp_path, values)
    values["finetune"]["image-text"] |= {"size": 100}
    assert "100 is not a multiple" in refused(tmp_path, values)


def test_the_token_level_takes_one_frame_and_masked_views_take_any(tmp_path: Path, values: dict[str, Any]) -> None:
    run = values["finetune"]["video-text"]
    assert run["frames"] > 1
    run["objective"]["weights"] = {"instance": 1, "token": 0, "task": 0, "masked_views": 1}
    assert Params.model_validate(values).finetune["video-text"].masked
    run["objective"]["weights"]["token"] = 1
    assert f"weights.token is not 0 with {run['frames']} frames" in refused(tmp_path, values)


def test_a_baseline_takes_no_parameters_of_the_other_objectives(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"] |= {"kind": "clip"}
    assert "pretrain.objective.clip.queue" in refused(tmp_path, values)


def test_a_temperature_below_its_least_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"]["temperature"] = {"start": 0.005, "learned": True, "least": 0.01}
    assert "start 0.005 lies below least 0.01" in refused(tmp_path, values)


def test_an_unknown_source_is_told_with_those_that_exist(tmp_path: Path, values: dict[str, Any]) -> None:
    values["source"] = {"kind": "ftp", "path": "x"}
    told = refused(tmp_path, values)
    assert "karpathy" in told
    assert "folder" in told


def test_a_dvae_is_trained_or_imported_never_a_mixture(tmp_path: Path, values: dict[str, Any]) -> None:
    imported = {"kind": "openai", "path": "weights", "codes": 8192, "seed": 0, "batch": 16, "sha256": "0" * 64}
    assert Params.model_validate(values | {"dvae": imported}).dvae.codes == 8192
    assert "dvae.openai.steps" in refused(tmp_path, values | {"dvae": imported | {"steps": 5}})
    assert "dvae.openai.sha256" in refused(tmp_path, values | {"dvae": imported | {"sha256": "12"}})
    assert "dvae.train.path" in refused(tmp_path, values | {"dvae": values["dvae"] | {"path": "weights"}})


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "", "\x00"])
def test_what_is_no_parameter_file_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"params\.yaml"):
        Params.load(tmp_path / "params.yaml")


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cots use"):
        Params.load(tmp_path / "params.yaml")
