"""The training split's loader from its configuration."""

from pathlib import Path

import numpy as np
import pandas as pd

from cots.config.training import TrainConfig
from cots.data.loader import Masking, TrainLoader
from cots.data.manifest import read_manifest
from cots.decode_threads import num_decode_threads
from cots.devices import default_device
from cots.distributed import local_slice, world_size
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder


def build_train_loader(
    manifest: Path, shards: Path, tokens: Path, *, model: DualEncoder, training: TrainConfig, media: tuple[str, ...]
) -> TrainLoader:
    """The training split's batches.

    Args:
        manifest: the manifest file; shards: the shard folder; tokens: the views folder.
        model: whose tokenizer and picture size apply.
        training: the section of the run.
        media: which samples take part, of "image" and "video".

    Raises:
        BadInput: there are fewer such samples than a batch has.
    """
    table = read_manifest(manifest)
    chosen = table[(table["split"] == "train") & table["media"].isin(media)]
    least = training.grad_accum_steps if training.fsdp else 1
    if training.batch_size < world_size() * least:
        asked = f"a batch of {training.batch_size}" + (f" in {least} parts" if least > 1 else "")
        raise BadInput(f"{asked} for {world_size()} processes: start fewer, or raise the batch")
    if len(chosen) < training.batch_size:
        kinds = " or ".join(media)
        raise BadInput(
            f"{len(chosen)} training samples of kind {kinds} in {manifest}: a batch needs {training.batch_size}"
        )
    names = sorted(chosen["shard"].unique())
    vision = model.config["image"]
    grid = vision["size"] // vision["patch"]
    mask = training.objective.masked
    masking = (
        Masking(grid=grid, patches=round(mask.patch_ratio * grid**2), block=mask.min_block, words=mask.mlm_probability)
        if mask
        else None
    )
    return TrainLoader(
        shards=tuple(shards / name for name in names),
        views=tuple((tokens / name).with_suffix(".safetensors") for name in names),
        keys=table["key"].to_numpy().astype(np.int64),
        caption_offsets=caption_offsets(table),
        num_samples=len(chosen),
        tokenizer=model.tokenizer,
        max_tokens=model.config["text"]["max_tokens"],
        batch_size=training.batch_size,
        frames=training.frames,
        size=vision["size"],
        masking=masking,
        rows=local_slice(training.batch_size),
        seed=training.seed,
        threads=num_decode_threads(default_device()),
    )


def caption_offsets(manifest: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Per sample, the number of its first caption among all captions of the manifest; one more entry for the end."""
    return np.concatenate([[0], manifest["captions"].map(len).cumsum()]).astype(np.int64)
