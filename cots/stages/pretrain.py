"""Stage `pretrain`: trains both encoders, on images and single video frames, from any start."""

import sys
from functools import partial
from pathlib import Path

import torch

from cots.config.stages.pretrain import PretrainParams
from cots.data.manifest import sample_captions
from cots.data.store import keep_folder, store_of
from cots.data.tokenizer import MAX_COUNTED, describe_unknown
from cots.distributed import rank
from cots.errors import exit_on_error
from cots.factory.model import build_model, describe, fit_to_section
from cots.init_distributed import init_distributed
from cots.tracking.live_curves import LiveCurves
from cots.tracking.loading import load_start
from cots.tracking.runs import start_run
from cots.training import checkpoint
from cots.training.fit import Inputs, fit


def stage(
    shards: Path,
    manifest: Path,
    tokens: Path,
    tokenizer: Path,
    out: Path,
    report: Path,
    run: Path,
    *,
    params: PretrainParams,
) -> None:
    """Build or load both encoders, train them, and write the model folder and the training curves."""
    torch.manual_seed(params.pretrain.seed)
    start = params.model.init_from
    if start:
        model = fit_to_section(load_start(start), params.model, name=start)
    else:
        model = build_model(params.model, tokenizer)
    train = partial(
        fit,
        model,
        Inputs(shards, manifest, tokens),
        report,
        name="pretrain",
        training=params.pretrain,
        num_codes=params.dvae.codebook_size,
        media=("image", "video"),
    )
    if rank():  # only rank 0 writes
        train()
        return
    print(f"pretrain: {describe(model, name=start)}", file=sys.stderr)
    pretrained = bool(params.model.init_from) or params.model.text.pretrained
    captions = sample_captions(manifest, MAX_COUNTED)
    if unknown := describe_unknown(model.tokenizer, [captions], pretrained=pretrained):
        print(f"pretrain: {unknown}", file=sys.stderr)
    with start_run("pretrain", {"model": params.model, "pretrain": params.pretrain}, run, manifest=manifest) as logged:
        with LiveCurves(logged) as live:
            curves = train(on_step=live.add)
        model.save(out)
        keep_folder(out, store_of(shards), stage="pretrain")
        logged.log_curves(curves)
        logged.log_artifact(report)
    checkpoint.remove("pretrain")


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        stage(*map(Path, sys.argv[1:]), params=PretrainParams.load())
