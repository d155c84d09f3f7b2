"""Parameter sections to objects: the only file that knows both."""

from pathlib import Path

import numpy as np
import pandas as pd

from cots.config import Model, Params, Section, Training
from cots.data.batches import Masking, RandomCrops, TrainingBatches
from cots.data.manifest import read_manifest
from cots.data.text import load_tokenizer
from cots.errors import BadInput
from cots.losses.filter import MomentumFilter
from cots.model import RetrievalModel
from cots.models.dvae import DOWNSAMPLING
from cots.models.heads import TokenHead
from cots.models.queue import PairQueue
from cots.objective import CotsObjective, Levels


def new_model(model: Model, tokenizer: Path) -> RetrievalModel:
    """Both streams as the section describes them, with random or pretrained weights."""
    text = load_tokenizer(model.text.name if model.text.pretrained else tokenizer)
    settings = {"dim": model.dim, "image": model.image.model_dump(), "text": model.text.model_dump()}
    return RetrievalModel.build(settings, text)


def new_objective(model: RetrievalModel, training: Training, *, codes: int) -> CotsObjective:
    """The training objective around a model's streams; `codes` is the size of the dVAE's codebook."""
    image, text, dim = model.image, model.text, model.dim
    return CotsObjective(
        image=image,
        text=text,
        patch_head=TokenHead(width=image.backbone.width, dim=dim, vocab=codes),
        word_head=TokenHead(width=text.backbone.width, dim=dim, vocab=len(model.tokenizer)),
        queue=PairQueue(size=training.queue, dim=dim, warmup=training.queue_warmup),
        noise_filter=MomentumFilter(**training.filter.model_dump()),
        weights=Levels(**training.weights.model_dump()),
        temperature=training.temperature,
        batch_negatives=training.batch_negatives,
        momentum=training.momentum,
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
    if len(chosen) < training.batch:
        kinds = " or ".join(media)
        raise BadInput(f"{len(chosen)} training samples of kind {kinds} in {manifest}: a batch needs {training.batch}")
    names = sorted(chosen["shard"].unique())
    vision = model.settings["image"]
    grid = vision["size"] // vision["patch"]
    mask = training.mask
    masking = Masking(grid=grid, patches=round(mask.image * grid**2), block=mask.block, words=mask.text)
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
        masking=masking if training.weights.token else None,
        seed=training.seed,
    )


def first_captions(manifest: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Per sample, the number of its first caption among all captions of the manifest; one more entry for the end."""
    return np.concatenate([[0], manifest["captions"].map(len).cumsum()]).astype(np.int64)


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
    )
