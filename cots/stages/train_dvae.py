"""Stage `train_dvae`: trains or imports the dVAE whose codes are the visual tokens."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from cots.config.dvae import TrainedDvaeConfig
from cots.config.renamed import dump_for_fingerprint
from cots.config.stages.train_dvae import TrainDvaeParams
from cots.data.random_crops import RandomCrops
from cots.data.store import keep_folder, store_of
from cots.devices import autocast, default_device
from cots.distributed import rank
from cots.errors import exit_on_error
from cots.factory.dvae_crops import build_dvae_crops
from cots.factory.enough_samples import BatchParams, require_enough_samples
from cots.file_names import CODEBOOK_USAGE, CURVES
from cots.files import atomic_file
from cots.fingerprint import fingerprint
from cots.init_distributed import init_distributed
from cots.models.dvae.io import AnyDvae, save_dvae
from cots.models.dvae.openai_weights import import_openai_dvae
from cots.models.dvae.pixels import to_pixels
from cots.models.dvae.vae import Dvae, perplexity
from cots.progress import Progress
from cots.training import checkpoint
from cots.training.dvae import Metrics, train_dvae

NUM_EXAMPLES = 12  # images shown with their reconstructions
NUM_BATCHES = 16  # for measuring codebook usage


def stage(shards: Path, manifest: Path, out: Path, report: Path, *, params: TrainDvaeParams) -> None:
    """Train the dVAE on crops of the training images, or import OpenAI's; write it with example reconstructions.

    Ranks train together; rank 0 measures and writes. An imported dVAE has no training curves: the metrics of the
    measured batches take their place.
    """
    crops = build_dvae_crops(manifest, shards, params)
    if rank() == 0:
        checkpoint.follow_shards(shards)
    if params.dvae.kind == "train":
        sections = {"dvae": params.dvae, "tokenize": params.tokenize, "model": params.model}
        values = [dump_for_fingerprint(section, name) for name, section in sections.items()]
        dvae, curves = build_and_train(params.dvae, crops, run_fingerprint=fingerprint(values, manifest))
    else:
        path, sha256, num_codes = params.dvae.path, params.dvae.sha256, params.dvae.codebook_size
        dvae, curves = import_openai_dvae(path, sha256=sha256, num_codes=num_codes).to(default_device()), []
    if rank():
        return
    save_dvae(dvae, out)
    keep_folder(out, store_of(shards), stage="train_dvae")
    report.mkdir(parents=True, exist_ok=True)
    usage, scores = save_reconstructions(dvae, crops, report / "reconstructions.png")
    with atomic_file(report / CODEBOOK_USAGE, durable=True) as partial:
        partial.write_text(json.dumps(usage, indent=1))
    with atomic_file(report / CURVES, durable=True) as partial:
        pd.DataFrame(curves or scores).to_csv(partial, index=False, float_format="%.6g")
    checkpoint.remove("train_dvae")


def build_and_train(
    section: TrainedDvaeConfig, crops: RandomCrops, *, run_fingerprint: str
) -> tuple[AnyDvae, list[Metrics]]:
    """Train a dVAE, or resume the unfinished run with this fingerprint; return it with its curves."""
    torch.manual_seed(section.seed)
    dvae = Dvae(num_codes=section.codebook_size, hidden=section.width, blocks=section.blocks).to(default_device())
    dvae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with Progress("train_dvae", total=section.steps, unit="steps") as progress:
        curves = train_dvae(
            dvae,
            crops,
            config=section,
            checkpoint_path=checkpoint.path_of("train_dvae"),
            fingerprint=run_fingerprint,
            on_step=progress.log_step,
        )
    return dvae, curves


def save_reconstructions(dvae: AnyDvae, crops: RandomCrops, image_path: Path) -> tuple[dict[str, float], list[Metrics]]:
    """Save unseen crops above their reconstructions; return codebook usage and the metrics of each batch."""
    counts, errors, metrics = torch.zeros(dvae.num_codes), [], list[Metrics]()
    unseen = crops.iter_from(10**6, slice(None))
    dvae.eval()
    with torch.inference_mode(), autocast(default_device()):
        for number in range(NUM_BATCHES):
            originals = to_pixels(next(unseen), default_device())
            codes = dvae.encode(originals)
            reconstructions = dvae.decode(codes).float()
            used = torch.bincount(codes.flatten().cpu(), minlength=dvae.num_codes)
            counts += used
            errors.append(float((reconstructions - originals).abs().mean()))
            squared = float(F.mse_loss(reconstructions, originals))
            metrics.append({"step": number, "reconstruction": squared, "perplexity": perplexity(used)})
    rows_of_images = [
        torch.cat(list(batch[:NUM_EXAMPLES]), dim=2).movedim(0, -1).cpu().numpy()
        for batch in (originals, reconstructions)
    ]
    with atomic_file(image_path, durable=True) as partial:
        Image.fromarray((np.concatenate(rows_of_images) * 255).round().astype(np.uint8)).save(partial, "PNG")
    usage = {
        "perplexity": round(perplexity(counts), 2),
        "codes": dvae.num_codes,
        "used": int((counts > 0).sum()),
        "l1": round(float(np.mean(errors)), 5),
    }
    return usage, metrics


def main(shards: Path, manifest: Path, out: Path, report: Path) -> None:
    """Run the stage, unless later ones could not train on such data."""
    params = TrainDvaeParams.load()
    require_enough_samples(manifest, BatchParams.load())  # not among DVC's `params`: batches change no dVAE
    stage(shards, manifest, out, report, params=params)


if __name__ == "__main__":
    with exit_on_error(), init_distributed():
        main(*map(Path, sys.argv[1:]))
