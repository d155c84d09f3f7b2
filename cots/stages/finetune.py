"""Stage `finetune`: a pre-trained model for one retrieval target, pictures or clips."""

import sys
from pathlib import Path

from pydantic import TypeAdapter

from cots.config import Params, Target
from cots.errors import told_in_one_line
from cots.model import RetrievalModel
from cots.serving.tracking import logged_run
from cots.training.fit import Inputs, fit

MEDIA: dict[Target, tuple[str, ...]] = {"image-text": ("image",), "video-text": ("video",)}


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
    params: Params,
) -> None:
    """Go on from the pre-trained streams with the target's samples; write the model folder and its curves."""
    model = RetrievalModel.load(start).resized(params.finetune[target].size)
    name = f"finetune-{target}"
    with logged_run(f"finetune@{target}", {"finetune": params.finetune[target]}, run, manifest=manifest) as logged:
        curves = fit(
            model,
            Inputs(shards, manifest, tokens),
            report,
            name=name,
            training=params.finetune[target],
            codes=params.dvae.codes,
            media=MEDIA[target],
        )
        model.save(out)
        logged.log_curves(curves)
        logged.log_artifact(report)


if __name__ == "__main__":
    with told_in_one_line():
        stage(TypeAdapter(Target).validate_python(sys.argv[1]), *map(Path, sys.argv[2:]), params=Params.load())
