"""Parameter sections to objects: the only file that knows both."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from cots.baselines.clip import ClipObjective
from cots.baselines.siglip import SiglipObjective
from cots.config import ClipObjective as ClipSection
from cots.config import CotsObjective as CotsSection
from cots.config import Model, Objective, Params, Section, Training
from cots.config import SiglipObjective as SiglipSection
from cots.data.batches import Masking, RandomCrops, TrainingBatches
from cots.data.manifest import read_manifest
from cots.data.text import load_tokenizer
from cots.dist import neighbours, own, world
from cots.errors import BadInput
from cots.losses.filter import MomentumFilter
from cots.model import RetrievalModel, device
from cots.models.dvae import DOWNSAMPLING
from cots.models.heads import TokenHead
from cots.models.queue import PairQueue
from cots.models.temperature import Temperature
from cots.objective import CotsObjective, Levels

DECODERS = 8  # threads at most: they share Python's lock with the thread that trains


def new_model(model: Model, tokenizer: Path) -> RetrievalModel:
    """Both streams as the section describes them, with random or pretrained weights."""
    text = load_tokenizer(model.text.name if model.text.pretrained else tokenizer)
    settings = {"dim": model.dim, "image": model.image.model_dump(), "text": model.text.model_dump()}
    return RetrievalModel.build(settings, text)


def new_objective(model: RetrievalModel, section: Objective, *, codes: int) -> nn.Module:
    """The training objective around a model's streams; `codes` is the size of the dVAE's codebook."""
    temperature = Temperature(**section.temperature.model_dump())
    match section:
        case CotsSection():
            return _cots(model, section, temperature, codes)
        case ClipSection():
            return ClipObjective(image=model.image, text=model.text, temperature=temperature)
        case SiglipSection():
            return SiglipObjective(image=model.image, text=model.text, temperature=temperature, bias=section.bias)


def _cots(model: RetrievalModel, section: CotsSection, temperature: Temperature, codes: int) -> CotsObjective:
    image, text, dim = model.image, model.text, model.dim
    return CotsObjective(
        image=image,
        text=text,
        patch_head=TokenHead(width=image.backbone.width, dim=dim, vocab=codes),
        word_head=TokenHead(width=text.backbone.width, dim=dim, vocab=len(model.tokenizer)),
        queue=PairQueue(size=section.queue, dim=dim, warmup=section.queue_warmup),
        noise_filter=MomentumFilter(**section.filter.model_dump()),
        weights=Levels(**section.weights.model_dump()),
        temperature=temperature,
        batch_negatives=section.batch_negatives,
        momentum=section.momentum,
    )


def training_batches(
    manifest: Path, shards: Path, tokens: Path, *, model: RetrievalModel, training: Training, media: tuple[str, ...]
) -> TrainingBatches:
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
    least = training.parts if training.shard_weights else 1
    if training.batch < world() * least:
        asked = f"a batch of {training.batch}" + (f" in {least} parts" if least > 1 else "")
        raise BadInput(f"{asked} for {world()} processes: start fewer, or raise the batch")
    if len(chosen) < training.batch:
        kinds = " or ".join(media)
        raise BadInput(f"{len(chosen)} training samples of kind {kinds} in {manifest}: a batch needs {training.batch}")
    names = sorted(chosen["shard"].unique())
    vision = model.settings["image"]
    grid = vision["size"] // vision["patch"]
    mask = training.masked
    masking = (
        Masking(grid=grid, patches=round(mask.image * grid**2), block=mask.block, words=mask.text) if mask else None
    )
    return TrainingBatches(
        shards=tuple(shards / name for name in names),
        views=tuple((tokens / name).with_suffix(".safetensors") for name in names),
        keys=table["key"].to_numpy().astype(np.int64),
        first_captions=first_captions(table),
        num_samples=len(chosen),
        tokenizer=model.tokenizer,
        max_tokens=model.settings["text"]["max_tokens"],
        batch=training.batch,
        frames=training.frames,
        size=vision["size"],
        masking=masking,
        rows=own(training.batch),
        seed=training.seed,
        threads=decoders(device()),
    )


def first_captions(manifest: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Per sample, the number of its first caption among all captions of the manifest; one more entry for the end."""
    return np.concatenate([[0], manifest["captions"].map(len).cumsum()]).astype(np.int64)


def decoders(where: torch.device) -> int:
    """How many threads decode pictures: one beside streams that compute on the same cores, else this process's cores.

    Source: docs/performance.md, loading.
    """
    if where.type == "cpu":
        return 1
    return max(1, min(DECODERS, len(os.sched_getaffinity(0)) // neighbours()))


def as_json(*sections: Section) -> list[dict[str, object]]:
    """Sections as plain values, for logs and fingerprints."""
    return [section.model_dump(mode="json") for section in sections]


def dvae_size(params: Params) -> int:
    """Pixels along a side of the dVAE's crops: one token for each patch of the image stream."""
    return params.model.image.grid * DOWNSAMPLING


def dvae_crops(manifest: Path, shards: Path, params: Params) -> RandomCrops:
    """Crops of all training samples, in the form that `tokenize` will cut them."""
    table = read_manifest(manifest)
    chosen = table[table["split"] == "train"]
    if len(chosen) < params.dvae.batch:
        raise BadInput(f"{len(chosen)} training samples in {manifest}: dvae.batch is {params.dvae.batch}")
    return RandomCrops(
        shards=tuple(shards / name for name in sorted(chosen["shard"].unique())),
        num_samples=len(chosen),
        batch=params.dvae.batch,
        size=dvae_size(params),
        scale=params.tokenize.scale,
        ratio=params.tokenize.ratio,
        seed=params.dvae.seed,
        threads=decoders(device()),
    )
