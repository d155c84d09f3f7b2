"""Measurements beside training: the right values, and no effect on the run."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from cots.config.params import Params
from cots.data.manifest import read_manifest, select_part
from cots.data.stored_samples import read_stored_samples
from cots.evaluation.embedding import embed
from cots.evaluation.retrieval import evaluate_retrieval
from cots.factory.model import build_model
from cots.factory.objective import build_objective
from cots.factory.train_loader import build_train_loader
from cots.models.dual_encoder import DualEncoder
from cots.training import checkpoint
from cots.training.fit import Inputs, fit
from cots.training.gradients import backward_batch
from cots.training.monitor import grad_norms
from cots.training.trainer import to_device
from tests.training.conftest import PIXELS, tiny_params

LEVELS = ("instance", "token", "task", "masked_views")
ALL = {"loss_weights": dict.fromkeys(LEVELS, 0.5)}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(data: Path, tokenized: Path, out: Path, params: Params) -> tuple[pd.DataFrame, DualEncoder]:
    torch.manual_seed(params.pretrain.seed)
    model = build_model(params.model, tokenized / "tokenizer")
    inputs = Inputs(data / "shards", data / "manifest.parquet", tokenized / "tokens")
    media = ("image", "video")
    curves = fit(model, inputs, out / "report", name="pretrain", training=params.pretrain, num_codes=16, media=media)
    checkpoint.path_of("pretrain").unlink()
    return curves, model


@pytest.mark.slow
def test_scores_appear_every_few_steps_and_are_those_of_the_evaluation(
    tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    plain = tiny_params(objective=ALL)
    watched = tiny_params(objective=ALL, pretrain={"validate_every": 4, "grad_norms_every": 3})
    without, model = run(tiny_data, tokenized, tmp_path / "without", plain)
    curves, same = run(tiny_data, tokenized, tmp_path / "with", watched)
    assert same.digest == model.digest
    measured = ["pairs_per_second", "utilisation", "data_wait"]
    pd.testing.assert_frame_equal(curves[without.columns].drop(columns=measured), without.drop(columns=measured))

    assert curves.loc[curves["val/rsum"].notna(), "step"].tolist() == [3, 5]
    rows = select_part(read_manifest(tiny_data / "manifest.parquet"), "val", "image")
    embedded = embed(model, read_stored_samples(tiny_data / "shards", rows), batch_size=4)
    metrics = evaluate_retrieval(embedded, media="image", folds=1, resamples=1, seed=0).metrics
    assert curves["val/rsum"].iloc[-1] == pytest.approx(metrics["rsum"], abs=0.01)
    assert curves["val/t2i/R1"].iloc[-1] == pytest.approx(metrics["t2i"]["R@1"], abs=0.01)

    norms = [f"grad_norm/{level}/{name}" for level in LEVELS for name in ("image", "text")]
    assert curves.loc[curves[norms[0]].notna(), "step"].tolist() == [0, 3]
    assert (curves.loc[[0, 3], norms] > 0).all(axis=None)


def test_the_norm_of_a_level_is_that_of_its_weighted_gradient(
    tiny_data: Path, tokenized: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_precision = torch.autocast("cpu", enabled=False)
    monkeypatch.setattr("cots.training.gradients.autocast", lambda _: full_precision)
    params = tiny_params(objective=ALL)
    torch.manual_seed(0)
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (tiny_data / "manifest.parquet", tiny_data / "shards", tokenized / "tokens")
    loader = build_train_loader(*paths, model=model, training=params.pretrain, media=("image", "video"))
    objective = build_objective(model, params.pretrain.objective, num_codes=16).train()
    batch = to_device(next(loader.iter_from(0)), PIXELS, torch.device("cpu"))
    before = torch.get_rng_state()
    norms = grad_norms(objective, batch, grad_accum_steps=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in objective.parameters())
    assert objective.levels == list(LEVELS)

    sums = {}
    for level in LEVELS:  # gradients of the levels add up to that of the whole loss
        with objective.only(level):
            backward_batch(objective, batch, grad_accum_steps=1)
        gradients = [p.grad.clone() for p in model.image.backbone.parameters() if p.grad is not None]
        assert norms[f"grad_norm/{level}/image"] == pytest.approx(
            float(torch.cat([gradient.flatten() for gradient in gradients]).norm()), rel=1e-5
        )
        sums[level] = {
            name: p.grad.clone() for name, p in model.image.backbone.named_parameters() if p.grad is not None
        }
        objective.zero_grad()
    backward_batch(objective, batch, grad_accum_steps=1)
    for name, parameter in model.image.backbone.named_parameters():
        parts = [level[name] for level in sums.values() if name in level]
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, torch.stack(parts).sum(dim=0), atol=1e-5, rtol=1e-4)


def test_measurements_need_whole_weights() -> None:
    with pytest.raises(ValidationError, match="validate_every and grad_norms_every need whole weights"):
        tiny_params(pretrain={"validate_every": 4, "fsdp": True})
