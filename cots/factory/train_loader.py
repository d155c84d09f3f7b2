"""The loader of the training split from its configuration."""

from pathlib import Path

import numpy as np
import pandas as pd

from cots.config.training import TrainConfig
from cots.data.crop_views import CropViews
from cots.data.hard_negatives import read_hard_negatives
from cots.data.languages import count_languages, has_translations, language_weights
from cots.data.loader import Masking, TrainLoader
from cots.data.manifest import read_manifest
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
            in several languages are needed and no sample has them.
    """
    table = read_manifest(manifest)
    samples = table[(table["split"] == "train") & table["media"].isin(media)]
    min_pairs = training.grad_accum_steps if training.fsdp else 1
    if training.batch_size < world_size() * min_pairs:
        batch = f"a batch of {training.batch_size}" + (f" in {min_pairs} micro-batches" if min_pairs > 1 else "")
        raise BadInput(f"{batch} for {world_size()} processes: start fewer, or raise batch_size")
    if len(samples) < training.batch_size:
        kinds = " or ".join(media)
        raise BadInput(
            f"{len(samples)} training samples of kind {kinds} in {manifest}: a batch needs {training.batch_size}"
        )
    if training.objective.needs_translations and not has_translations(samples):
        raise BadInput(
            f"loss_weights.translation: no training sample in {manifest} has captions in two languages: give its table "
            "a column `language`, or set the weight to 0"
        )
    names = sorted(samples["shard"].unique())
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
    views = tuple((tokens / name).with_suffix(".safetensors") for name in names)
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
    hard = training.hard_negatives
    return TrainLoader(
        shards=tuple(shards / name for name in names),
        views=views,
        keys=table["key"].to_numpy().astype(np.int64),
        caption_offsets=caption_offsets(table),
        num_samples=len(samples),
        tokenizer=model.tokenizer,
        max_tokens=model.config["text"]["max_tokens"],
        text_length=model.text_length,
        batch_size=training.batch_size,
        captions_per_sample=training.captions_per_sample,
        language_weights=language_weights(count_languages(samples), training.language_temperature)
        if training.language_temperature != 1
        else None,
        frames=training.frames,
        size=image_config["size"],
        masking=masking,
        translations=training.objective.needs_translations,
        seed=training.seed,
        threads=num_decode_threads(default_device()),
        num_views=num_views,
        hard_negatives=read_hard_negatives(hard.table, table) if hard.table else None,
        hard_share=hard.share,
        two_crops=two_crops,
    )


def caption_offsets(manifest: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of each sample's first caption among all captions of the manifest, and the number of captions."""
    return np.concatenate([[0], manifest["captions"].map(len).cumsum()]).astype(np.int64)
