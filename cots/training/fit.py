"""One training run over the pipeline's files, common to `pretrain` and `finetune`."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from cots.config.renamed import dump_for_fingerprint
from cots.config.training import TrainConfig
from cots.curves import TOTAL_LOSS
from cots.data.manifest import read_pieces
from cots.devices import default_device
from cots.distributed import rank
from cots.factory.objective import build_objective, trained_scales
from cots.factory.train_loader import build_train_loader
from cots.file_names import CURVES, PAIRS
from cots.files import atomic_file
from cots.fingerprint import fingerprint
from cots.models.class_head import ClassHead
from cots.models.dual_encoder import DualEncoder
from cots.objectives.protocol import saved_encoders
from cots.progress import Progress
from cots.training import checkpoint
from cots.training.frozen_features import with_frozen_features
from cots.training.fsdp import apply_fsdp, full_state_dict
from cots.training.monitor import Monitor
from cots.training.optim import build_param_groups
from cots.training.trainer import train
from cots.training.validation import validate

log = logging.getLogger(__name__)


class Inputs(NamedTuple):
    """The files that a training run reads."""

    shards: Path
    manifest: Path
    tokens: Path


def fit(
    model: DualEncoder,
    inputs: Inputs,
    report: Path,
    *,
    name: str,
    training: TrainConfig,
    num_codes: int,
    media: tuple[str, ...],
    on_step: Callable[[Mapping[str, float]], None] | None = None,
) -> pd.DataFrame:
    """Train a model in place; rank 0 writes curves and pair statistics. The checkpoint stays until the caller is done.

    Args:
        model: with its initial weights.
        inputs: shards, manifest, visual tokens.
        report: folder for curves.csv and pairs.parquet.
        name: of the run, for the progress bar and the checkpoint file.
        training: the section of the run.
        num_codes: size of the dVAE's codebook.
        media: "image" and/or "video": the samples to train on.
        on_step: called with the row of each step's curves as soon as it is known.

    Returns:
        The curves, one row per step.
    """
    torch.manual_seed(training.seed)
    initial_digest = model.digest
    configure_trainable(model.to(default_device()), training)
    pixel_stats = model.config["image"]["mean"], model.config["image"]["std"]
    loader = build_train_loader(
        inputs.manifest, inputs.shards, inputs.tokens, model=model, training=training, media=media
    )
    if training.cached_views:
        folder = Path("runs/features") / name
        loader = with_frozen_features(
            loader, model.image, folder, num_views=training.cached_views, pixel_stats=pixel_stats
        )
    classes = loader.classes.names if loader.classes else ()
    objective = build_objective(model, training.objective, num_codes=num_codes, classes=classes).to(default_device())
    if training.fsdp:
        apply_fsdp(objective)
    groups = build_param_groups(
        objective,
        weight_decay=training.weight_decay,
        layer_decay=training.layer_decay,
        head_lr_scale=training.head_lr_scale,
    )
    optimizer = torch.optim.AdamW(groups, fused=True)
    values = dump_for_fingerprint(training, "pretrain")  # for fine-tuning too, which has the same keys
    tables = [training.hard_negatives.table] if training.hard_negatives.table else []
    run_fingerprint = fingerprint([initial_digest, num_codes, media, [values]], inputs.manifest, inputs.tokens, *tables)
    if rank() == 0:
        checkpoint.follow_shards(inputs.shards)
    monitor = Monitor(
        objective, training, partial(validate, model, objective, inputs.shards, inputs.manifest, training, media=media)
    )
    with Progress(name, total=training.steps, unit="steps") as progress:

        def show(row: Mapping[str, float]) -> None:
            progress.log_step(row)
            if on_step:
                on_step(row)

        result = train(
            objective,
            optimizer,
            loader,
            config=training,
            pixel_stats=pixel_stats,
            checkpoint_path=checkpoint.path_of(name),
            fingerprint=run_fingerprint,
            monitor=monitor,
            on_step=show,
        )
    export_encoders(model, objective, momentum=training.objective.saves_ema)
    model.config = model.config | trained_scales(model, objective)
    if training.steps:
        export_class_head(model, objective, classes=classes, column=training.objective.needed_class_column or "")
    curves = pd.DataFrame(result.curves, columns=None if result.curves else ["step", TOTAL_LOSS])
    if rank() == 0:
        _write(report, curves, result.pairs.to_table(read_pieces(inputs.manifest, ["id", "captions"])))
    return curves


def _write(report: Path, curves: pd.DataFrame, pairs: pd.DataFrame) -> None:
    report.mkdir(parents=True, exist_ok=True)
    with atomic_file(report / CURVES, durable=True) as partial:
        curves.to_csv(partial, index=False, float_format="%.6g")
    with atomic_file(report / PAIRS, durable=True) as partial:
        pairs.to_parquet(partial, index=False)


def configure_trainable(model: DualEncoder, training: TrainConfig) -> None:
    """Freeze blocks and switch on gradient checkpointing, as the section says."""
    trainable = training.trainable_blocks
    for encoder, blocks in ((model.image, trainable.image), (model.text, trainable.text)):
        if blocks == "locked":
            encoder.lock()
        elif blocks != "all":
            encoder.freeze_except_last(blocks)
        if training.gradient_checkpointing:
            encoder.set_grad_checkpointing()


def export_encoders(model: DualEncoder, objective: nn.Module, *, momentum: bool) -> None:
    """Put the online or the momentum encoders into the model, unsharded; on rank 0 only."""
    if not momentum and not isinstance(model.image.backbone, FSDPModule):
        return
    weights = [full_state_dict(objective.get_submodule(name).state_dict()) for name in saved_encoders(ema=momentum)]
    if rank() == 0:
        fresh = DualEncoder.build(model.config, model.tokenizer)
        fresh.image.load_state_dict(weights[0])
        fresh.text.load_state_dict(weights[1])
        model.image, model.text = fresh.image, fresh.text


def export_class_head(model: DualEncoder, objective: nn.Module, *, classes: tuple[str, ...], column: str) -> None:
    """Put the trained classification head into the model, unsharded; on rank 0 only.

    Without one, a head that the model has had does not fit the encoders any more: it is taken away.
    """
    trained = getattr(objective, "class_head", None)
    if trained is None:
        if model.class_head:
            log.warning("the run has no weight `classification`: the classification head of its start is left out")
        model.set_class_head(None)
        return
    weights = full_state_dict(trained.state_dict())
    if rank() == 0:
        head = ClassHead(dim=model.dim, num_classes=len(classes))
        head.load_state_dict(weights)
        model.set_class_head(head, classes=classes, column=column)
