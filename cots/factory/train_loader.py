"""The loader of the training split from its configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cots.config.training import TrainConfig
from cots.data.classes import read_classes
from cots.data.crop_views import CropViews
from cots.data.hard_negatives import read_hard_negatives
from cots.data.languages import count_languages, has_translations, language_weights
from cots.data.loader import Masking, TrainLoader
from cots.data.manifest import read_manifest, read_pieces, read_split
from cots.data.shard_rows import SHARD_COLUMNS, find_shard_rows
from cots.decode_threads import num_decode_threads
from cots.devices import default_device
from cots.distributed import world_size
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder


def build_train_loader(
    manifest: Path, shards: Path, tokens: Path, *, model: DualEncoder, training: TrainConfig, media: tuple[str, ...]
) -> TrainLoader:
    """The loader of the training split.

    Args:
        manifest: the manifest file; shards: the folder of shards; tokens: the folder of visual tokens.
        model: gives tokenizer and image size.
        training: the section of the run.
        media: "image" and/or "video": the samples to train on.

    Raises:
        BadInput: there are fewer such samples than pairs in a batch, the batch is too small for the ranks, or captions
            in several languages or classes are needed and no sample has them.
    """
    samples = read_samples(manifest, media)
    min_pairs = training.grad_accum_steps if training.fsdp else 1
    if training.batch_size < world_size() * min_pairs:
        batch = f"a batch of {training.batch_size}" + (f" in {min_pairs} micro-batches" if min_pairs > 1 else "")
        raise BadInput(f"{batch} for {world_size()} processes: start fewer, or raise batch_size")
    number = sum(map(len, samples.shard_rows))
    if number < training.batch_size:
        kinds = " or ".join(media)
        raise BadInput(f"{number} training samples of kind {kinds} in {manifest}: a batch needs {training.batch_size}")
    if training.objective.needs_translations and not has_translations(_train_rows(manifest, media)):
        raise BadInput(
            f"loss_weights.translation: no training sample in {manifest} has captions in two languages: give its table "
            "a column `language`, or set the weight to 0"
        )
    image_config = model.config["image"]
    grid = image_config["size"] // image_config["patch"]
    mask = training.objective.masked
    masked_grid = grid if training.objective.masks_images else 0
    masking = (
        Masking(
            grid=masked_grid,
            num_masked=round(mask.patch_ratio * masked_grid**2),
            min_block=mask.min_block,
            mlm_probability=mask.mlm_probability,
        )
        if mask
        else None
    )
    views = tuple((tokens / name).with_suffix(".safetensors") for name in samples.shards)
    _, num_views, num_tokens = CropViews.load(views[0]).tokens.shape
    two_crops = training.objective.needs_two_crops
    if two_crops and min(num_views, training.cached_views or num_views) < 2:
        raise BadInput(
            "loss_weights.within_modality compares two crops of an image: set tokenize.crops_per_image to 2 or more, "
            "and cached_views if it is not 0"
        )
    if masked_grid and num_tokens != grid**2:
        patches = f"{grid**2} patches of {image_config['patch']} pixels"
        raise BadInput(f"the visual tokens in {tokens} are {num_tokens} for each image, and the model has {patches}")
    hard, class_column = training.hard_negatives, training.objective.needed_class_column
    return TrainLoader(
        shards=tuple(shards / name for name in samples.shards),
        views=views,
        keys=samples.keys,
        caption_offsets=samples.caption_offsets,
        shard_rows=samples.shard_rows,
        tokenizer=model.tokenizer,
        max_tokens=model.config["text"]["max_tokens"],
        text_length=model.text_length,
        batch_size=training.batch_size,
        captions_per_sample=training.captions_per_sample,
        language_weights=language_weights(count_languages(_train_rows(manifest, media)), training.language_temperature)
        if training.language_temperature != 1
        else None,
        frames=training.frames,
        size=image_config["size"],
        masking=masking,
        translations=training.objective.needs_translations,
        classes=read_classes(manifest, class_column, media) if class_column else None,
        seed=training.seed,
        threads=num_decode_threads(default_device()),
        num_views=num_views,
        hard_negatives=read_hard_negatives(hard.table, read_manifest(manifest)) if hard.table else None,
        hard_share=hard.share,
        two_crops=two_crops,
    )


def _train_rows(manifest: Path, media: tuple[str, ...]) -> pd.DataFrame:
    """The rows of the samples to train on, for what needs their captions' languages."""
    rows = read_split(manifest, "train")
    return rows[rows["media"].isin(media)]


class Samples(NamedTuple):
    """What a loader must know of all samples: 16 bytes each."""

    keys: NDArray[np.int64]  # of all samples of the manifest
    caption_offsets: NDArray[np.int64]  # index of each sample's first caption among all captions, and their number
    shards: list[str]  # that hold the samples to train on
    shard_rows: tuple[range, ...]  # of each of them, the rows of the manifest that it holds


def read_samples(manifest: Path, media: tuple[str, ...]) -> Samples:
    """Read what a loader must know of all samples.

    Args:
        manifest: the manifest file.
        media: "image" and/or "video": the samples to train on.

    Raises:
        BadInput: the samples of a shard do not follow each other, which `prepare` writes nowhere.
    """
    num_rows = pq.read_metadata(manifest).num_rows if manifest.is_file() else 0
    keys, offsets = np.empty(num_rows, np.int64), np.zeros(num_rows + 1, np.int64)

    def pieces() -> Iterator[pa.RecordBatch]:
        row = 0
        for piece in read_pieces(manifest, ["key", "captions", *SHARD_COLUMNS]):
            rows = slice(row, row := row + len(piece))
            keys[rows] = piece["key"].cast(pa.int64())
            offsets[1:][rows] = pc.list_value_length(piece["captions"])
            yield piece

    shards = find_shard_rows(pieces(), media)
    return Samples(keys, np.cumsum(offsets, out=offsets), list(shards), tuple(shards.values()))
