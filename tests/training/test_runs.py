"""Whole runs on a dozen images: they repeat, resume, and change only what they should."""

import shutil
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cots.config.params import Params
from cots.config.training import TrainConfig
from cots.curves import TOTAL_LOSS, loss_column
from cots.data.crop_views import CropViews
from cots.data.loader import NumpyBatch
from cots.data.manifest import read_manifest, select_part
from cots.data.shards import read_shard
from cots.data.stored_samples import read_stored_samples
from cots.errors import BadInput, RunFailed
from cots.evaluation.embedding import embed
from cots.evaluation.retrieval import evaluate_retrieval
from cots.factory.model import build_model
from cots.factory.objective import build_objective
from cots.factory.train_loader import build_train_loader
from cots.fingerprint import fingerprint
from cots.models.dual_encoder import DualEncoder
from cots.objectives.cots import CotsObjective
from cots.objectives.protocol import ALL_ROWS, Batch, LossOutput
from cots.stages import finetune, tokenize
from cots.training.optim import build_param_groups
from cots.training.trainer import to_device, train_step, with_wait_seconds
from tests.training.conftest import BOTH, PIXELS, killed_at, run, tiny_params

UNFILTERED = {"filter": {"warmup_steps": 0, "num_std": None, "momentum": 0.9}}  # rounding may change what is kept


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def usual(tiny_data: Path, tokenized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run with `tiny_params()` leaves; not to be written to."""
    folder = tmp_path_factory.mktemp("usual")
    with chdir(folder):
        return run(tiny_data, tokenized, folder, tiny_params())


@pytest.fixture(scope="module")
def unfiltered(tiny_data: Path, tokenized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a run that keeps every pair."""
    folder = tmp_path_factory.mktemp("unfiltered")
    with chdir(folder):
        return run(tiny_data, tokenized, folder, tiny_params(objective=UNFILTERED))


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def killed_run(step: int, data: Path, tokenized: Path, tmp_path: Path) -> None:
    """A run that ends as if killed when it logs `step`."""
    with killed_at(step):
        run(data, tokenized, tmp_path / "killed", tiny_params())


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_killed_run_ends_with_the_weights_and_curves_of_an_uninterrupted_one(
    tiny_data: Path, tokenized: Path, tmp_path: Path, usual: Path, step: int
) -> None:
    killed_run(step, tiny_data, tokenized, tmp_path)
    resumed = run(tiny_data, tokenized, tmp_path / "resumed", tiny_params())
    assert weights(resumed) == weights(usual)
    mine, theirs = (pd.read_csv(out / "report/curves.csv") for out in (resumed, usual))
    timing = ["pairs_per_second", "utilisation", "data_wait"]
    pd.testing.assert_frame_equal(mine.drop(columns=timing), theirs.drop(columns=timing))
    mine, theirs = (pd.read_parquet(out / "report/pairs.parquet") for out in (resumed, usual))
    pd.testing.assert_frame_equal(mine, theirs)


def test_waiting_for_an_item_is_the_time_that_it_takes_to_come() -> None:
    moments = iter([0.0, 5.0, 6.0, 6.0, 9.0])  # request, arrival, next request, arrival

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cots.training.trainer.time.perf_counter", lambda: next(moments))
        assert list(with_wait_seconds(iter("ab"))) == [("a", 5.0), ("b", 0.0)]


def test_curves_contain_the_share_of_time_spent_waiting(usual: Path) -> None:
    curves = pd.read_csv(usual / "report/curves.csv")
    assert curves["data_wait"].between(0, 1).all()
    assert curves["data_wait"].gt(0).any()


@pytest.mark.slow
def test_a_checkpoint_of_other_parameters_is_not_gone_on_from(tiny_data: Path, tokenized: Path, tmp_path: Path) -> None:
    other = tiny_params(pretrain={"learning_rate": 0.0005})
    fresh = run(tiny_data, tokenized, tmp_path / "fresh", other)
    killed_run(4, tiny_data, tokenized, tmp_path)
    assert Path("runs/checkpoints/pretrain.pt").is_file()
    assert weights(run(tiny_data, tokenized, tmp_path / "after", other)) == weights(fresh)


@pytest.fixture
def traced_only() -> Iterator[None]:
    """torch.compile traces and derives the backward pass; two minutes of g++ are left to `benchmarks.forms`."""
    torch.compiler.set_default_backend("aot_eager")
    yield
    torch.compiler.set_default_backend("inductor")
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of itself
@pytest.mark.usefixtures("traced_only")
def test_compiled_blocks_learn_what_others_do(
    tiny_data: Path, tokenized: Path, tmp_path: Path, unfiltered: Path
) -> None:
    torch._dynamo.utils.counters.clear()
    compiled = run(tiny_data, tokenized, tmp_path, tiny_params(pretrain={"torch_compile": True}, objective=UNFILTERED))
    losses = [TOTAL_LOSS, *map(loss_column, ("instance", "token", "task"))]
    mine, theirs = (pd.read_csv(out / "report/curves.csv")[losses] for out in (compiled, unfiltered))
    pd.testing.assert_frame_equal(mine[:3], theirs[:3], rtol=1e-3)  # the last one after the first compiled step
    pd.testing.assert_frame_equal(mine, theirs, rtol=1e-2, atol=2e-2)  # bf16 rounds otherwise, Adam makes much of it
    assert torch._dynamo.utils.counters["frames"]["ok"]


CLIP = {"kind": "clip", "temperature": {"init": 0.07, "learnable": True, "min": 0.01}}
SIGLIP = {"kind": "siglip", "temperature": {"init": 0.1, "learnable": True, "min": 0.01}, "bias": -10.0}


@pytest.mark.slow
@pytest.mark.parametrize(("section", "loss"), [(CLIP, "contrastive"), (SIGLIP, "sigmoid")])
def test_a_baseline_runs_through_the_same_loop_and_resumes(
    section: dict[str, Any], loss: str, tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    params = tiny_params()
    params = params.model_copy(
        update={"pretrain": TrainConfig.model_validate(params.pretrain.model_dump() | {"objective": section})}
    )
    whole = run(tiny_data, tokenized, tmp_path / "whole", params)
    curves = pd.read_csv(whole / "report/curves.csv")
    assert curves[loss_column(loss)].notna().all()
    assert curves["temperature"].nunique() > 1
    assert pd.read_parquet(whole / "report/pairs.parquet").empty


@pytest.mark.slow
def test_gradient_accumulation_ends_with_nearly_the_same_weights(
    tiny_data: Path, tokenized: Path, tmp_path: Path, unfiltered: Path
) -> None:
    parts = run(
        tiny_data, tokenized, tmp_path / "parts", tiny_params(pretrain={"grad_accum_steps": 3}, objective=UNFILTERED)
    )
    mine, theirs = (pd.read_csv(out / "report/curves.csv") for out in (parts, unfiltered))
    np.testing.assert_allclose(mine[TOTAL_LOSS], theirs[TOTAL_LOSS], rtol=0.02)
    assert weights(parts) != weights(unfiltered)


@pytest.mark.slow
def test_shared_blocks_and_the_contrast_within_modalities_resume_to_the_bit_with_cached_views(
    tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    weights_of = {"instance": 1.0, "token": 0.0, "task": 0.0, "masked_views": 0.0, "within_modality": 0.5}
    params = tiny_params(
        model={"shared_blocks": 1},
        pretrain={"captions_per_sample": 2, "steps": 4},
        objective={"loss_weights": weights_of},
    )
    frozen = {"trainable_blocks": {"image": 0, "text": 1}, "cached_views": 2}
    training = TrainConfig.model_validate(params.pretrain.model_dump() | frozen)
    params = params.model_copy(update={"pretrain": training})
    whole = run(tiny_data, tokenized, tmp_path / "whole", params)
    with killed_at(2):
        run(tiny_data, tokenized, tmp_path / "killed", params)
    assert weights(run(tiny_data, tokenized, tmp_path / "resumed", params)) == weights(whole)


def test_two_crops_of_an_image_are_two_of_its_views(tiny_data: Path, tokenized: Path) -> None:
    params = tiny_params(objective={"loss_weights": {"instance": 1.0, "within_modality": 1.0}})
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (tiny_data / "manifest.parquet", tiny_data / "shards", tokenized / "tokens")
    batches = build_train_loader(*paths, model=model, training=params.pretrain, media=BOTH)
    plain = replace(batches, two_crops=False)
    for epoch, number in product((0, 1, 5), range(len(batches.shards))):
        shown = list(batches.read_views(number, epoch))
        assert [view.place[1] for view in shown] == [epoch % 2] * len(shown)
        expected = [view.place for view in plain.read_views(number, epoch + 1)]
        assert [view.other.place for view in shown if view.other] == expected
    arrays, alone = next(batches.iter_from(3)), next(plain.iter_from(3))
    assert arrays.other_frames is not None
    assert alone.other_frames is None
    assert arrays.other_frames.shape == arrays.frames.shape
    for name in ("image_index", "caption_index", "frames", "input_ids", "mlm_input_ids", "bool_masked_pos"):
        assert np.array_equal(getattr(arrays, name), getattr(alone, name)), name
    with pytest.raises(BadInput, match="set tokenize.crops_per_image to 2 or more, and cached_views"):
        once = params.pretrain.model_copy(update={"cached_views": 1})
        build_train_loader(*paths, model=model, training=once, media=BOTH)


@pytest.mark.slow
def test_the_momentum_encoders_are_saved_if_requested(tiny_data: Path, tokenized: Path, tmp_path: Path) -> None:
    still = {"momentum": 1.0, "save": "ema"}  # momentum encoders that never change equal the initial weights
    out = run(tiny_data, tokenized, tmp_path / "still", tiny_params(objective=still))
    torch.manual_seed(tiny_params().pretrain.seed)
    start = build_model(tiny_params().model, tokenized / "tokenizer")
    saved = load_file(out / "model" / "model.safetensors")
    assert torch.equal(saved["image.projection.weight"], start.image.projection.weight)
    trained = run(tiny_data, tokenized, tmp_path / "trained", tiny_params(objective=still | {"save": "online"}))
    assert weights(trained) != weights(out)


@pytest.mark.slow
def test_a_model_is_fine_tuned_and_measured_at_another_resolution(
    tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    params = tiny_params()
    run_at = params.finetune["image-text"].model_copy(update={"size": 48})
    params = params.model_copy(update={"finetune": params.finetune | {"image-text": run_at}})
    start = run(tiny_data, tokenized, tmp_path / "pretrained", params) / "model"
    files = (tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "tokens", start)
    out = (tmp_path / "tuned", tmp_path / "report", tmp_path / "run.json")
    finetune.stage("image-text", *files, *out, params=params)
    model = DualEncoder.load(tmp_path / "tuned")
    assert model.config["image"]["size"] == 48
    rows = select_part(read_manifest(tiny_data / "manifest.parquet"), "test", "image")
    embedded = embed(model, read_stored_samples(tiny_data / "shards", rows), batch_size=4)
    metrics = evaluate_retrieval(embedded, media="image", folds=1, resamples=2, seed=0).metrics
    assert metrics["queries"]["items"] == len(rows)
    positions = load_file(tmp_path / "tuned" / "model.safetensors")["image.backbone.vit.pos_embed"]
    assert positions.shape[1] == 1 + (48 // 8) ** 2


def test_other_seeds_give_other_weights(tiny_data: Path, tokenized: Path, tmp_path: Path, usual: Path) -> None:
    other = run(tiny_data, tokenized, tmp_path, tiny_params(pretrain={"seed": 1}))
    assert weights(other) != weights(usual)


def objective_and_batch(data: Path, tokenized: Path, params: Params) -> tuple[CotsObjective, NumpyBatch]:
    torch.manual_seed(0)
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (data / "manifest.parquet", data / "shards", tokenized / "tokens")
    batches = build_train_loader(*paths, model=model, training=params.pretrain, media=BOTH)
    objective = build_objective(model, params.pretrain.objective, num_codes=16)
    assert isinstance(objective, CotsObjective)
    return objective, next(batches.iter_from(0))


def whole(objective: CotsObjective, batch: Batch) -> LossOutput:
    output: LossOutput = objective(batch, objective.compute_keys(batch, [ALL_ROWS]))
    return output


def test_two_forwards_leave_every_buffer_and_weight_bit_identical(tiny_data: Path, tokenized: Path) -> None:
    objective, arrays = objective_and_batch(tiny_data, tokenized, tiny_params())
    batch = to_device(arrays, PIXELS, torch.device("cpu"))
    optimizer = torch.optim.AdamW(build_param_groups(objective, weight_decay=0.02, layer_decay=1.0))
    for _ in range(4):
        train_step(objective, optimizer, batch, learning_rate=1e-3, max_grad_norm=1.0, grad_accum_steps=1)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    first, second = whole(objective, batch), whole(objective, batch)
    assert torch.equal(first.loss, second.loss)
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())


def test_update_state_changes_momentum_encoders_queue_and_filter_and_nothing_else(
    tiny_data: Path, tokenized: Path
) -> None:
    objective, arrays = objective_and_batch(tiny_data, tokenized, tiny_params())
    with torch.no_grad():
        for parameter in objective.image.parameters():
            parameter.add_(0.1)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.update_state(objective.compute_keys(to_device(arrays, PIXELS, torch.device("cpu")), [ALL_ROWS]))
    moved = {
        name.split(".")[0] for name, value in objective.state_dict().items() if not torch.equal(before[name], value)
    }
    assert moved == {"image_m", "queue", "noise_filter"}


def test_a_dropped_pair_adds_to_no_loss_and_its_keys_stay_out_of_the_queue(tiny_data: Path, tokenized: Path) -> None:
    objective, arrays = objective_and_batch(tiny_data, tokenized, tiny_params())
    batch = to_device(arrays, PIXELS, torch.device("cpu"))
    similarity = objective.compute_keys(batch, [ALL_ROWS]).similarity.sort().values
    objective.noise_filter.steps.fill_(10)
    halfway = float((similarity[0] + similarity[1]) / 2)  # between the worst pair and the next
    objective.noise_filter.ema_mean.fill_(halfway * (1 - 0.9**10))
    objective.noise_filter.ema_square.fill_(halfway**2 * (1 - 0.9**10))
    keys = objective.compute_keys(batch, [ALL_ROWS])
    assert int(keys.keep_mask.sum()) == len(batch.image_index) - 1
    rest = batch.select(keys.keep_mask.nonzero()[:, 0])
    torch.testing.assert_close(whole(objective, batch).loss, whole(objective, rest).loss, rtol=1e-5, atol=0)
    objective.update_state(keys)
    assert int(objective.queue.count) == len(batch.image_index) - 1


def test_a_level_of_weight_zero_is_not_computed(tiny_data: Path, tokenized: Path) -> None:
    params = tiny_params(objective={"loss_weights": {"instance": 1.0, "token": 0.0, "task": 0.0, "masked_views": 0.0}})
    objective, arrays = objective_and_batch(tiny_data, tokenized, params)
    assert arrays.bool_masked_pos.shape[1] == arrays.mlm_input_ids.shape[1] == 0
    calls = []
    objective.image.register_forward_hook(lambda *_: calls.append("image"))
    objective.patch_head.register_forward_hook(lambda *_: calls.append("head"))
    output = whole(objective, to_device(arrays, PIXELS, torch.device("cpu")))
    assert calls == ["image"]
    assert list(output.losses) == ["instance"]


def test_every_weight_learns_under_the_whole_objective(tiny_data: Path, tokenized: Path) -> None:
    objective, arrays = objective_and_batch(tiny_data, tokenized, tiny_params())
    batch = to_device(arrays, PIXELS, torch.device("cpu"))
    objective.update_state(objective.compute_keys(batch, [ALL_ROWS]))
    whole(objective, batch._replace(image_index=batch.image_index + 1000)).loss.backward()  # type: ignore[no-untyped-call]
    idle = [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_an_epoch_takes_each_sample_once_with_the_view_that_was_tokenized(tiny_data: Path, tokenized: Path) -> None:
    params = tiny_params(pretrain={"batch_size": 3})
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (tiny_data / "manifest.parquet", tiny_data / "shards", tokenized / "tokens")
    batches = build_train_loader(*paths, model=model, training=params.pretrain, media=BOTH)
    drawn = batches.iter_from(0)
    epoch = [next(drawn) for _ in range(3)]
    table = read_manifest(tiny_data / "manifest.parquet")
    numbers = np.concatenate([batch.image_index for batch in epoch])
    assert sorted(numbers) == list(np.flatnonzero(table["split"] == "train"))
    views = {
        sample.key: CropViews.load((tokenized / "tokens" / name).with_suffix(".safetensors")).tokens[row, 0]
        for name in ("train/image-00000.tar", "train/video-00000.tar")
        for row, sample in enumerate(read_shard(tiny_data / "shards" / name))
    }
    for batch in epoch:
        for number, tokens in zip(batch.image_index, batch.visual_tokens, strict=True):
            assert np.array_equal(tokens, views[table["key"][number]])


def test_several_captions_of_a_sample_come_with_its_image_once_and_no_caption_twice(
    tiny_data: Path, tokenized: Path
) -> None:
    params = tiny_params(pretrain={"batch_size": 3, "captions_per_sample": 4})
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (tiny_data / "manifest.parquet", tiny_data / "shards", tokenized / "tokens")
    loader = build_train_loader(*paths, model=model, training=params.pretrain, media=BOTH)
    table = read_manifest(tiny_data / "manifest.parquet")
    counts = table["captions"].map(len).to_numpy()
    assert counts.min() < 4  # some have fewer
    for arrays, _ in zip(loader.iter_from(0), range(3), strict=False):
        samples, pairs = np.unique(arrays.image_index, return_counts=True)
        assert len(samples) == len(arrays.frames) == len(arrays.visual_tokens) == 3
        assert pairs.tolist() == np.minimum(counts[samples], 4).tolist()
        assert len(set(arrays.caption_index)) == len(arrays.caption_index) == len(arrays.input_ids)
        for row in range(3):
            [sample] = set(arrays.image_index[arrays.frame_row == row])
            own = arrays.caption_index[arrays.frame_row == row] - loader.caption_offsets[sample]
            assert set(own) <= set(range(counts[sample]))


def test_batches_from_the_middle_are_the_batches_of_the_beginning(tiny_data: Path, tokenized: Path) -> None:
    params = tiny_params()
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (tiny_data / "manifest.parquet", tiny_data / "shards", tokenized / "tokens")
    batches = build_train_loader(*paths, model=model, training=params.pretrain, media=BOTH)
    straight = [arrays for arrays, _ in zip(batches.iter_from(0), range(6), strict=False)]
    for step in (1, 2, 5):
        for mine, theirs in zip(next(batches.iter_from(step)), straight[step], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers(tiny_data: Path, tokenized: Path) -> None:
    params = tiny_params(pretrain={"batch_size": 64})
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (tiny_data / "manifest.parquet", tiny_data / "shards", tokenized / "tokens")
    with pytest.raises(BadInput, match=r"9 training samples .* batch needs 64"):
        build_train_loader(*paths, model=model, training=params.pretrain, media=BOTH)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_in_words(tiny_data: Path, tokenized: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="lower the learning rate"):
        run(tiny_data, tokenized, tmp_path, tiny_params(pretrain={"learning_rate": 1e30, "steps": 60}))


def test_a_model_folder_gives_the_same_vectors_after_loading(usual: Path) -> None:
    model = DualEncoder.load(usual / "model")
    texts = ["a red square", "one blue plain image", "a"]
    rows = model.encode_texts(texts, batch_size=2)
    assert rows.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(rows[::-1], model.encode_texts(texts[::-1], batch_size=3), atol=1e-6)
    assert set(load_file(usual / "model" / "model.safetensors")) >= {
        "image.projection.weight",
        "text.projection.weight",
    }


def test_tokenize_keeps_finished_shards_and_starts_over_for_other_parameters(
    tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    shutil.copytree(tokenized / "tokens", out)
    kept, removed = out / "train/image-00000.safetensors", out / "train/video-00000.safetensors"
    original = removed.read_bytes()
    removed.unlink()
    born = kept.stat().st_mtime_ns
    paths = (tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "dvae", out, tmp_path / "tokenizer")
    tokenize.stage(*paths, params=tiny_params())
    assert removed.read_bytes() == original
    assert kept.stat().st_mtime_ns == born
    tokenize.stage(*paths, params=tiny_params(tokenize={"seed": 7}))
    assert removed.read_bytes() != original


def test_a_fingerprint_changes_with_values_and_with_file_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    marks = {fingerprint({"x": 1}, tmp_path), fingerprint({"x": 2}, tmp_path)}
    (tmp_path / "a").write_text("2")
    assert len(marks | {fingerprint({"x": 1}, tmp_path)}) == 3
