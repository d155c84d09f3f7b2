"""Stage `train_dvae`: the dVAE whose codes are the visual tokens."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cots.build import as_json, dvae_crops
from cots.config import Params
from cots.data.batches import RandomCrops
from cots.errors import told_in_one_line
from cots.model import autocast, device
from cots.models.dvae import Dvae, perplexity
from cots.progress import Progress
from cots.training.checkpoint import fingerprint
from cots.training.dvae import DvaeRecipe, pixels, train_dvae

SHOWN = 12  # pictures beside their reconstructions
CHECKED = 16  # batches that measure the use of the codebook


def stage(shards: Path, manifest: Path, out: Path, report: Path, *, params: Params) -> None:
    """Train the dVAE on crops of the training pictures; write it, its curves and what it makes of some pictures."""
    section = params.dvae
    torch.manual_seed(section.seed)
    dvae = Dvae(codes=section.codes, hidden=section.hidden, blocks=section.blocks).to(device())
    dvae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crops = dvae_crops(manifest, shards, params)
    recipe = DvaeRecipe(
        seed=section.seed,
        steps=section.steps,
        learning_rate=section.learning_rate,
        temperature=(section.temperature.start, section.temperature.end),
        kl_weight=section.kl_weight,
        checkpoint_every=section.checkpoint_every,
    )
    mark = fingerprint(as_json(section, params.tokenize, params.model), manifest)
    with Progress("train_dvae", total=recipe.steps, unit="steps") as progress:
        curves = train_dvae(
            dvae,
            crops,
            recipe=recipe,
            saved=Path("runs/checkpoints/train_dvae.pt"),
            fingerprint=mark,
            report=progress.row,
        )
    dvae.save(out)
    report.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(curves).to_csv(report / "curves.csv", index=False, float_format="%.6g")
    (report / "usage.json").write_text(json.dumps(show(dvae, crops, report / "reconstructions.png"), indent=1))


def show(dvae: Dvae, crops: RandomCrops, picture: Path) -> dict[str, float]:
    """Measure the codebook on unseen crops and draw originals above reconstructions."""
    counts, errors = torch.zeros(dvae.codes), []
    later = crops.starting(10**6)
    dvae.eval()
    with torch.inference_mode(), autocast(device()):
        for _ in range(CHECKED):
            originals = pixels(next(later), device())
            codes = dvae.encode(originals)
            made = dvae.decode(codes).float()
            counts += torch.bincount(codes.flatten().cpu(), minlength=dvae.codes)
            errors.append(float((made - originals).abs().mean()))
    rows = [torch.cat(list(batch[:SHOWN]), dim=2).movedim(0, -1).cpu().numpy() for batch in (originals, made)]
    Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8)).save(picture)
    return {
        "perplexity": round(perplexity(counts), 2),
        "codes": dvae.codes,
        "used": int((counts > 0).sum()),
        "l1": round(float(np.mean(errors)), 5),
    }


if __name__ == "__main__":
    with told_in_one_line():
        stage(*map(Path, sys.argv[1:]), params=Params.load())
