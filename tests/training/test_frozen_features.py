"""What frozen blocks compute once: the same training, from files that are reused and renewed when they must be."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from cots.config.params import Params
from cots.config.training import TrainConfig
from cots.data.loader import TrainLoader
from cots.devices import compute_dtype, default_device
from cots.errors import BadInput
from cots.factory.model import build_model
from cots.factory.train_loader import build_train_loader
from cots.models.dual_encoder import DualEncoder
from cots.models.momentum import MomentumEncoder
from cots.training import checkpoint
from cots.training.fit import Inputs, configure_trainable, fit
from cots.training.frozen_features import with_frozen_features
from cots.training.trainer import to_device
from tests.training.conftest import PIXELS, killed_at, tiny_params

INSTANCE = {"loss_weights": {"instance": 1.0, "token": 0.0, "task": 0.1, "masked_views": 0.0}}
FOLDER = Path("runs/features/pretrain")
ROUNDING = 3e-3 if compute_dtype(default_device()) is torch.float32 else 1e-2  # of kept tokens in half precision


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_blocks(image: int | str, **pretrain: Any) -> Params:
    """Parameters with an image encoder of three blocks, of which `image` are trained."""
    params = tiny_params(objective=INSTANCE)
    params.model.image.options["depth"] = 3
    section = params.pretrain.model_dump() | {"trainable_blocks": {"image": image}} | pretrain
    return params.model_copy(update={"pretrain": TrainConfig.model_validate(section)})


def prepared(params: Params, data: Path, tokenized: Path) -> tuple[DualEncoder, TrainLoader]:
    torch.manual_seed(0)
    model = build_model(params.model, tokenized / "tokenizer")
    configure_trainable(model, params.pretrain)
    paths = (data / "manifest.parquet", data / "shards", tokenized / "tokens")
    return model, build_train_loader(*paths, model=model, training=params.pretrain, media=("image", "video"))


def run(params: Params, data: Path, tokenized: Path, out: str) -> tuple[pd.DataFrame, DualEncoder]:
    torch.manual_seed(0)
    model = build_model(params.model, tokenized / "tokenizer")
    inputs = Inputs(data / "shards", data / "manifest.parquet", tokenized / "tokens")
    media = ("image", "video")
    curves = fit(model, inputs, Path(out), name="pretrain", training=params.pretrain, num_codes=16, media=media)
    return curves, model


@pytest.mark.parametrize("blocks", [2, 0, "locked"])
@torch.no_grad()
def test_every_view_has_the_embedding_of_its_pixels(
    blocks: int | str, tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    model, loader = prepared(with_blocks(blocks), tiny_data, tokenized)
    cached = with_frozen_features(loader, model.image, tmp_path / "features", num_views=9, pixel_stats=PIXELS)
    assert model.image.num_lower_blocks == {2: 1, 0: 3, "locked": 3}[blocks]
    momentum = MomentumEncoder(model.image)
    steps = 2 * loader.num_samples // loader.batch_size  # of both views that the fixture has
    assert steps >= 2
    for pixels, tokens in zip(islice(loader.iter_from(0), steps), cached.iter_from(0), strict=False):
        assert tokens.image_index.tolist() == pixels.image_index.tolist()
        assert tokens.input_ids.tolist() == pixels.input_ids.tolist()
        images, features = (to_device(arrays, PIXELS, torch.device("cpu")).frames for arrays in (pixels, tokens))
        assert features.shape == (loader.batch_size, 1, 17, 32)
        torch.testing.assert_close(model.image(features), model.image(images), atol=ROUNDING, rtol=0)
        torch.testing.assert_close(momentum(features), model.image(images), atol=ROUNDING, rtol=0)


def test_one_view_of_a_sample_is_used_in_every_epoch(tiny_data: Path, tokenized: Path, tmp_path: Path) -> None:
    model, loader = prepared(with_blocks(1), tiny_data, tokenized)
    cached = with_frozen_features(loader, model.image, tmp_path / "features", num_views=1, pixel_stats=PIXELS)
    assert {sample.place[1] for epoch in range(3) for sample in cached.read_views(0, epoch)} == {0}
    assert {sample.place[1] for epoch in range(3) for sample in loader.read_views(0, epoch)} == {0, 1}


def test_training_is_that_from_pixels_and_resumes_to_the_bit(tiny_data: Path, tokenized: Path) -> None:
    plain, _ = run(with_blocks(1), tiny_data, tokenized, "plain")
    params = with_blocks(1, cached_views=2)
    curves, model = run(params, tiny_data, tokenized, "cached")
    losses = ["loss/instance", "loss/task"]
    assert curves[losses].to_numpy() == pytest.approx(plain[losses].to_numpy(), abs=5 * ROUNDING)
    assert curves["loss/instance"].nunique() == len(curves)

    checkpoint.path_of("pretrain").unlink()  # as the stage does at its end
    written = {file: file.stat().st_mtime_ns for file in FOLDER.iterdir()}
    assert written
    with killed_at(4):
        run(params, tiny_data, tokenized, "killed")
    _, resumed = run(params, tiny_data, tokenized, "resumed")
    assert resumed.digest == model.digest
    assert {file: file.stat().st_mtime_ns for file in FOLDER.iterdir()} == written


def test_features_of_other_weights_or_shards_take_the_place_of_the_old_ones(
    tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    model, loader = prepared(with_blocks(1), tiny_data, tokenized)

    def names(**changes: Any) -> set[str]:
        with_frozen_features(
            replace(loader, **changes), model.image, tmp_path / "features", num_views=2, pixel_stats=PIXELS
        )
        return {file.name for file in (tmp_path / "features").iterdir()}

    first = names()
    assert len(first) == len(loader.shards)
    with torch.no_grad():
        model.image.backbone.blocks[-1].norm1.weight.add_(1)  # type: ignore[union-attr, operator]
        model.image.backbone.mask_token.add_(1)  # type: ignore[operator]
    assert names() == first  # neither is below the first trained block
    with torch.no_grad():
        model.image.backbone.blocks[0].norm1.weight.add_(1)  # type: ignore[union-attr, operator]
    second = names()
    assert not first & second
    assert len(names(shards=loader.shards[:1], views=loader.views[:1])) == 1


def test_tokens_beyond_half_precision_are_refused(tiny_data: Path, tokenized: Path, tmp_path: Path) -> None:
    model, loader = prepared(with_blocks(1), tiny_data, tokenized)
    with torch.no_grad():
        model.image.backbone.blocks[1].mlp.fc2.bias.add_(1e5)  # type: ignore[union-attr, operator]
    with pytest.raises(BadInput, match="too large for half precision: set it to 0"):
        with_frozen_features(loader, model.image, tmp_path / "features", num_views=1, pixel_stats=PIXELS)
    assert not [*(tmp_path / "features").iterdir()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainable_blocks": {"image": "all"}}, "needs frozen blocks"),
        ({"objective": {"loss_weights": {"token": 1.0}}}, "needs whole images"),
        ({"objective": {"loss_weights": {"token": 0.0, "masked_views": 1.0}}}, "needs whole images"),
        ({"objective": INSTANCE, "frames": 2}, "one frame"),
        ({"objective": INSTANCE, "fsdp": True}, "no fsdp"),
    ],
)
def test_what_cannot_be_cached_is_refused(change: dict[str, Any], message: str) -> None:
    section = {"cached_views": 2, "trainable_blocks": {"image": 1}}
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(section | change)
