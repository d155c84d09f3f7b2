"""Stage `finetune`: trains a pre-trained model further for one retrieval target, images or videos."""

import sys
from functools import partial
from pathlib import Path

from cots.config.stages.finetune import FinetuneParams
from cots.data.store import keep_folder, store_of
from cots.directions import MEDIA_OF, Target
from cots.distributed import rank
from cots.errors import BadInput, exit_on_error
from cots.factory.model import describe
from cots.init_distributed import init_distributed
from cots.models.dual_encoder import DualEncoder
from cots.tracking.live_curves import LiveCurves
from cots.tracking.loading import load_start
from cots.tracking.runs import start_run
from cots.training import checkpoint
from cots.training.fit import Inputs, fit


def stage(
    target: Target,
    shards: Path,
    manifest: Path,
    tokens: Path,
    start: Path,
    out: Path,
    report: Path,
    run: Path,
    *,
    params: FinetuneParams,
) -> None:
    """Train the pre-trained encoders on the target's samples; write the model folder and the training curves."""
    training = params.finetune[target]
    loaded = load_start(training.init_from) if training.init_from else DualEncoder.load(start)
    model = loaded.with_image_size(training.size)
    train = partial(
        fit,
        model,
        Inputs(shards, manifest, tokens),
        report,
        name=f"finetune-{target}",
        training=training,
        num_codes=params.dvae.codebook_size,
        media=(MEDIA_OF[target],),
    )
    if rank():  # only rank 0 writes
        train()
        return
    print(f"finetune-{target}: {describe(model, name=training.init_from or str(start))}", file=sys.stderr)
    with start_run(f"finetune@{target}", {"finetune": training}, run, manifest=manifest) as logged:
        with LiveCurves(logged) as live:
            curves = train(on_step=live.add)
        model.save(out)
        keep_folder(out, store_of(shards), stage=f"finetune@{target}")
        logged.log_curves(curves)
        logged.log_artifact(report)
    checkpoint.remove(f"finetune-{target}")


def main(name: str, *paths: str) -> None:
    """Train for the target of one of DVC's stages.

    Args:
        name: of the stage, `finetune@TARGET`. It comes in a variable of the shell, which would run what a name of
            params.yaml held if it stood in the command.
        paths: those of `stage`, but of the last three only the folders in which each target has its own.

    Raises:
        BadInput: params.yaml is wrong, or has no such target.
    """
    params = FinetuneParams.load()
    target = next((target for target in params.finetune if target == name.rpartition("@")[2]), None)
    if target is None:
        raise BadInput(f"{name!r} is no stage: finetune has the targets {', '.join(params.finetune) or 'none'}")
    shards, manifest, tokens, start, models, reports, runs = map(Path, paths)
    own = models / target, reports / target, runs / f"finetune-{target}.json"
    stage(target, shards, manifest, tokens, start, *own, params=params)


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        main(*sys.argv[1:])
