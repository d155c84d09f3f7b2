"""One run of the objective over the files of the pipeline: what `pretrain` and `finetune` have in common."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from cots.build import new_objective, training_batches
from cots.config.renamed import dump_for_fingerprint
from cots.config.training import TrainConfig
from cots.data.manifest import read_manifest
from cots.dist import rank
from cots.file_names import CURVES, PAIRS
from cots.model import RetrievalModel, device
from cots.progress import Progress
from cots.training.checkpoint import fingerprint
from cots.training.groups import parameter_groups
from cots.training.loop import train
from cots.training.sharding import shard, whole


class Inputs(NamedTuple):
    """The files that a training run reads."""

    shards: Path
    manifest: Path
    tokens: Path


def fit(
    model: RetrievalModel,
    inputs: Inputs,
    report: Path,
    *,
    name: str,
    training: TrainConfig,
    codes: int,
    media: tuple[str, ...],
) -> pd.DataFrame:
    """Train a model's streams in place; the first process writes curves and pair scores.

    Args:
        model: with its starting weights.
        inputs: shards, manifest, views.
        report: folder for curves.csv and pairs.parquet.
        name: of the run, for progress and checkpoint.
        training: the section of the run.
        codes: size of the dVAE's codebook.
        media: which samples take part.

    Returns:
        The curves, one row a step.
    """
    torch.manual_seed(training.seed)
    start = model.digest
    prepared(model.to(device()), training)
    objective = new_objective(model, training.objective, codes=codes).to(device())
    if training.fsdp:
        shard(objective)
    groups = parameter_groups(objective, weight_decay=training.weight_decay, layer_decay=training.layer_decay)
    optimizer = torch.optim.AdamW(groups, fused=True)
    batches = training_batches(
        inputs.manifest, inputs.shards, inputs.tokens, model=model, training=training, media=media
    )
    values = dump_for_fingerprint(training, "pretrain")  # whose keys had the names of those of finetune
    mark = fingerprint([start, codes, media, [values]], inputs.manifest, inputs.tokens)
    vision = model.settings["image"]
    with Progress(name, total=training.steps, unit="steps") as progress:
        trained = train(
            objective,
            optimizer,
            batches,
            config=training,
            pixels=(vision["mean"], vision["std"]),
            saved=Path(f"runs/checkpoints/{name}.pt"),
            fingerprint=mark,
            report=progress.row,
        )
    left_behind(model, objective, momentum=training.objective.saves_ema)
    curves = pd.DataFrame(trained.curves)
    if rank() == 0:
        _write(report, curves, trained.pairs.table(read_manifest(inputs.manifest)))
    return curves


def _write(report: Path, curves: pd.DataFrame, pairs: pd.DataFrame) -> None:
    report.mkdir(parents=True, exist_ok=True)
    curves.to_csv(report / CURVES, index=False, float_format="%.6g")
    pairs.to_parquet(report / PAIRS, index=False)


def prepared(model: RetrievalModel, training: TrainConfig) -> None:
    """Freeze the blocks that are not trained, and trade memory for time where asked."""
    trained = training.trainable_blocks
    for stream, blocks in ((model.image, trained.image), (model.text, trained.text)):
        if blocks != "all":
            stream.freeze_but_last(blocks)
        if training.gradient_checkpointing:
            stream.checkpoint_gradients()


def left_behind(model: RetrievalModel, objective: nn.Module, *, momentum: bool) -> None:
    """Give the model whole streams again: the trained ones, or the momentum streams; to the first process alone."""
    if not momentum and not isinstance(model.image.backbone, FSDPModule):
        return
    streams = ("image_slow.module", "text_slow.module") if momentum else ("image", "text")
    weights = [whole(objective.get_submodule(name).state_dict()) for name in streams]
    if rank() == 0:
        fresh = RetrievalModel.build(model.settings, model.tokenizer)
        fresh.image.load_state_dict(weights[0])
        fresh.text.load_state_dict(weights[1])
        model.image, model.text = fresh.image, fresh.text
