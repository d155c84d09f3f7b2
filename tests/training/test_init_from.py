"""Runs that start from a model: CLIP and SigLIP checkpoints, trained folders, registered versions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from cots.config.objective import ClipObjectiveConfig, TemperatureConfig
from cots.config.params import Params
from cots.config.stages.finetune import FinetuneParams
from cots.errors import BadInput
from cots.factory.objective import build_objective
from cots.models.dual_encoder import DualEncoder
from cots.registry.client import INDEX
from cots.report.sections import training_charts
from cots.stages import finetune, pretrain
from cots.tracking.loading import load_encoders, load_start
from tests.training.conftest import OBJECTIVE, killed_at, tiny_params
from tests.two_towers import KINDS

ALL_LEVELS = OBJECTIVE | {"loss_weights": {"instance": 1.0, "token": 1.0, "task": 1.0, "masked_views": 1.0}}
FROM_MODEL = {"init": None, "learnable": True, "min": 0.005}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "cots": {"kind": "cots"} | ALL_LEVELS | {"temperature": FROM_MODEL},
    "clip": {"kind": "clip", "temperature": FROM_MODEL},
    "siglip": {"kind": "siglip", "temperature": FROM_MODEL, "bias": None},
}


def params_from(start: str, objective: str) -> Params:
    values = tiny_params().model_dump(mode="json", by_alias=True)
    values["model"]["init_from"] = start
    values["pretrain"] |= {"objective": OBJECTIVES[objective], "steps": 4}
    return Params.model_validate(values)


def run(data: Path, tokenized: Path, out: Path, params: Params) -> DualEncoder:
    files = (data / "shards", data / "manifest.parquet", tokenized / "tokens", tokenized / "tokenizer")
    pretrain.stage(*files, out / "model", out / "report", out / "run.json", params=params)
    return DualEncoder.load(out / "model")


def tune(data: Path, tokenized: Path, model: Path, out: Path, changes: dict[str, Any]) -> None:
    """Run stage `finetune@image-text` on a model, with changes of its section."""
    values = tiny_params().model_dump(mode="json", by_alias=True)
    values["finetune"]["image-text"] |= changes
    files = (data / "shards", data / "manifest.parquet", tokenized / "tokens", model)
    results = (out / name for name in ("tuned", "report", "run.json"))
    finetune.stage("image-text", *files, *results, params=FinetuneParams.model_validate(values))


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", ["transformers CLIP", "open_clip SigLIP"])
def test_clip_and_siglip_are_trained_further_and_resume_to_the_bit(
    kind: str,
    objective: str,
    store: str,
    tiny_data: Path,
    tokenized: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = KINDS[kind](tmp_path / "theirs")
    params = params_from(str(reference.path), objective)
    whole = run(tiny_data, tokenized, tmp_path / "whole", params)
    with killed_at(2):
        run(tiny_data, tokenized, tmp_path / "killed", params)
    assert Path("runs/checkpoints/pretrain.pt").is_file()
    resumed = run(tiny_data, tokenized, tmp_path / "resumed", params)
    assert resumed.digest == whole.digest

    curves = pd.read_csv(tmp_path / "whole/report/curves.csv")
    assert np.isfinite(curves["loss/total"]).all()
    assert curves["temperature"].iloc[0] == pytest.approx(reference.temperature, rel=0.01)
    assert whole.config["temperature"] == pytest.approx(curves["temperature"].iloc[-1], rel=1e-4)
    if objective == "siglip":
        assert curves["bias"].iloc[0] == pytest.approx(-10.0 if reference.bias is None else reference.bias, abs=0.01)
    start = load_encoders(str(reference.path))
    assert whole.config["init_from"] == {"name": str(reference.path), "digest": start.digest}
    name = "image.backbone.vit.blocks.0.mlp.fc1.weight"
    trained = load_file(tmp_path / "whole/model/model.safetensors")[name]
    assert not torch.equal(trained, start.image.state_dict()[name.removeprefix("image.")])
    lines = [line for line in capsys.readouterr().err.splitlines() if "starts from" in line]
    assert lines[0].startswith(f"pretrain: starts from {reference.path}: vit_base_patch16_")


@pytest.mark.slow
def test_a_run_goes_on_from_a_registered_version_and_names_what_that_began_with(
    store_of_one_version: Path,
    tiny_data: Path,
    tokenized: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_of_one_version}")
    first = run(tiny_data, tokenized, tmp_path / "first", params_from(f"models:/{INDEX}@champion", "clip"))
    champion = load_encoders(f"models:/{INDEX}/1")
    version = {"name": f"models:/{INDEX}/1", "digest": champion.digest}
    assert first.config["init_from"] == version
    assert first.digest != champion.digest
    second = load_start(str(tmp_path / "first/model"))
    assert second.config["init_from"] == {
        "name": str(tmp_path / "first/model"),
        "digest": first.digest,
        "init_from": version,
    }


@pytest.mark.slow
def test_without_steps_a_start_goes_through_both_runs_as_it_is(
    store: str, tiny_data: Path, tokenized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = KINDS["open_clip CLIP"](tmp_path / "theirs")
    params = params_from(str(reference.path), "cots")
    params = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"steps": 0})})
    first = run(tiny_data, tokenized, tmp_path, params)
    tune(tiny_data, tokenized, tmp_path / "model", tmp_path, {"steps": 0, "objective": OBJECTIVES["cots"], "size": 32})
    start, tuned = load_encoders(str(reference.path)), DualEncoder.load(tmp_path / "tuned")
    for model in (first, tuned):
        assert model.config["temperature"] == pytest.approx(reference.temperature, rel=1e-6)
        assert {**model.text.state_dict()}.keys() == {**start.text.state_dict()}.keys()
        for mine, theirs in zip(model.text.parameters(), start.text.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert pd.read_csv(tmp_path / "report/curves.csv").empty
    assert training_charts("fine-tuning", tmp_path / "report") == []


@pytest.mark.slow
def test_fine_tuning_starts_from_another_model_than_the_pretrained_one(
    store: str, tiny_data: Path, tiny_model: Path, tokenized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = KINDS["open_clip CLIP"](tmp_path / "theirs")
    changes = {"init_from": str(reference.path), "objective": OBJECTIVES["clip"], "steps": 2}
    tune(tiny_data, tokenized, tiny_model, tmp_path, changes)
    assert DualEncoder.load(tmp_path / "tuned").config["init_from"]["name"] == str(reference.path)


def test_a_start_with_patches_of_another_size_is_refused(
    tiny_data: Path, tokenized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = KINDS["open_clip CLIP"](tmp_path / "theirs")
    values = params_from(str(reference.path), "clip").model_dump(mode="json", by_alias=True)
    values["model"]["image"] |= {"size": 32, "patch": 16}
    with pytest.raises(BadInput, match=r"model.image.patch is 16, and .* has patches of 8 pixels: give 8"):
        run(tiny_data, tokenized, tmp_path / "out", Params.model_validate(values))


def test_visual_tokens_of_other_patches_are_refused(
    store: str, tiny_data: Path, tiny_model: Path, tokenized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reference = KINDS["open_clip CLIP"](tmp_path / "theirs")
    changes = {"init_from": str(reference.path), "size": 48, "objective": {"loss_weights": {"token": 1.0}}}
    with pytest.raises(BadInput, match="are 16 for each image, and the model has 36 patches of 8 pixels"):
        tune(tiny_data, tokenized, tiny_model, tmp_path, changes)


def test_a_start_in_the_pipelines_own_outputs_is_refused() -> None:
    values = tiny_params().model_dump(mode="json", by_alias=True)
    values["model"]["init_from"] = "models/finetuned/image-text"
    with pytest.raises(ValidationError, match="DVC removes it before the stage runs: copy the folder"):
        Params.model_validate(values)


def test_a_temperature_that_starts_below_its_bound_is_learned(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    for tau in (0.009999749, 0.0085, 0.003, 0.02):
        model.config = model.config | {"temperature": tau}
        section = ClipObjectiveConfig(temperature=TemperatureConfig(init=None, learnable=True))
        temperature = build_objective(model, section, num_codes=16).get_submodule("temperature")
        value = temperature()
        value.backward()
        assert value.item() == pytest.approx(tau)
        assert all(parameter.grad != 0 for parameter in temperature.parameters())
