"""Parameter sections to objects: the only file that knows both."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cots.baselines.clip import ClipObjective
from cots.baselines.siglip import SiglipObjective
from cots.config.model import ModelConfig
from cots.config.objective import ClipObjectiveConfig, CotsObjectiveConfig, ObjectiveConfig, SiglipObjectiveConfig
from cots.config.stages.tokenize import TokenizeParams
from cots.config.stages.train_dvae import TrainDvaeParams
from cots.config.training import TrainConfig
from cots.data.batches import Masking, RandomCrops, TrainLoader
from cots.data.manifest import read_manifest
from cots.data.text import load_tokenizer
from cots.dist import local_world_size, local_slice, world_size
from cots.errors import BadInput
from cots.losses.filter import AdaptiveMomentumFilter
from cots.model import DualEncoder, default_device
from cots.models.dvae import DOWNSAMPLING
from cots.models.heads import MaskedTokenHead
from cots.models.queue import PairQueue
from cots.models.temperature import Temperature
from cots.objective import CotsObjective, LossWeights
from cots.objectives.protocol import Objective

MAX_DECODE_THREADS = 8  # threads at most: they share Python's lock with the thread that trains


def build_model(model: ModelConfig, tokenizer: Path) -> DualEncoder:
    """Both streams as the section describes them, with random or pretrained weights."""
    text = load_tokenizer(model.text.name if model.text.pretrained else tokenizer)
    settings = {"dim": model.dim, "image": model.image.model_dump(), "text": model.text.model_dump()}
    return DualEncoder.build(settings, text)


def build_objective(model: DualEncoder, section: ObjectiveConfig, *, codes: int) -> Objective[Any]:
    """The training objective around a model's streams; `codes` is the size of the dVAE's codebook."""
    chosen = section.temperature
    temperature = Temperature(start=chosen.init, learned=chosen.learnable, least=chosen.min)
    return OBJECTIVES[section.kind](model, section, temperature, codes)


def _cots(model: DualEncoder, section: CotsObjectiveConfig, temperature: Temperature, codes: int) -> CotsObjective:
    image, text, dim, noise = model.image, model.text, model.dim, section.filter
    return CotsObjective(
        image=image,
        text=text,
        patch_head=MaskedTokenHead(width=image.backbone.width, dim=dim, vocab=codes),
        word_head=MaskedTokenHead(width=text.backbone.width, dim=dim, vocab=len(model.tokenizer)),
        queue=PairQueue(size=section.queue_size, dim=dim, warmup=section.queue_warmup_steps),
        noise_filter=AdaptiveMomentumFilter(
            warmup=noise.warmup_steps, deviations=noise.num_std, momentum=noise.momentum
        ),
        weights=LossWeights(**section.loss_weights.model_dump()),
        temperature=temperature,
        batch_negatives=section.in_batch_negatives,
        momentum=section.momentum,
    )


def _clip(model: DualEncoder, section: ClipObjectiveConfig, temperature: Temperature, codes: int) -> ClipObjective:
    return ClipObjective(image=model.image, text=model.text, temperature=temperature)


def _siglip(
    model: DualEncoder, section: SiglipObjectiveConfig, temperature: Temperature, codes: int
) -> SiglipObjective:
    return SiglipObjective(image=model.image, text=model.text, temperature=temperature, bias=section.bias)


# Each takes the model, its own section, the temperature and the size of the dVAE's codebook.
OBJECTIVES: dict[str, Callable[[DualEncoder, Any, Temperature, int], Objective[Any]]] = {
    "cots": _cots,
    "clip": _clip,
    "siglip": _siglip,
}


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


def num_decode_threads(device: torch.device) -> int:
    """How many threads decode pictures: one beside streams that compute on the same cores, else this process's cores.

    Source: docs/performance.md, loading.
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MAX_DECODE_THREADS, len(os.sched_getaffinity(0)) // local_world_size()))


def dvae_image_size(params: TokenizeParams | TrainDvaeParams) -> int:
    """Pixels along a side of the dVAE's crops: one token for each patch of the image stream."""
    return params.model.image.grid * DOWNSAMPLING


def build_dvae_crops(manifest: Path, shards: Path, params: TrainDvaeParams) -> RandomCrops:
    """Crops of all training samples, in the form that `tokenize` will cut them."""
    table = read_manifest(manifest)
    chosen = table[table["split"] == "train"]
    if len(chosen) < params.dvae.batch_size:
        raise BadInput(f"{len(chosen)} training samples in {manifest}: dvae.batch_size is {params.dvae.batch_size}")
    return RandomCrops(
        shards=tuple(shards / name for name in sorted(chosen["shard"].unique())),
        num_samples=len(chosen),
        batch_size=params.dvae.batch_size,
        size=dvae_image_size(params),
        scale=params.tokenize.scale,
        ratio=params.tokenize.ratio,
        seed=params.dvae.seed,
        threads=num_decode_threads(default_device()),
    )
