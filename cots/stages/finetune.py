"""Stage `finetune`: trains a pre-trained model further for one retrieval target, images or videos."""

import sys
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from cots.config.stages.finetune import FinetuneParams
from cots.directions import MEDIA_OF, Target
from cots.distributed import rank
from cots.errors import exit_on_error
from cots.factory.model import describe
from cots.init_distributed import init_distributed
from cots.models.dual_encoder import DualEncoder
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
        curves = train()
        model.save(out)
        logged.log_curves(curves)
        logged.log_artifact(report)
    checkpoint.path_of(f"finetune-{target}").unlink(missing_ok=True)


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        stage(TypeAdapter(Target).validate_python(sys.argv[1]), *map(Path, sys.argv[2:]), params=FinetuneParams.load())
