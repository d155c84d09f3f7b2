"""What re-ranking by a single stream adds to two streams, and what it costs, on the images of this project.

Run it in a folder in which `dvc repro finetune@image-text` has run; `python -m benchmarks.reranking 500` trains for 500
steps. The cross-encoder is trained on the same shards, crops and captions as the two encoders, and re-ranks their
nearest candidates on the evaluation split. It is saved to runs/cross-encoder.
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from benchmarks._single_stream.cross_encoder import CrossEncoder
from benchmarks._single_stream.matching import ITMObjective, TemperatureSchedule
from benchmarks._single_stream.reranking import rerank
from cots.config.params import Params
from cots.data.manifest import read_manifest, select_part
from cots.data.stored_samples import decode_frames, read_stored_samples
from cots.devices import default_device
from cots.errors import exit_on_error
from cots.evaluation.embedding import EmbeddedSplit, embed
from cots.evaluation.metrics import RECALL_KS, Floats, Ints, rank_queries
from cots.factory.train_loader import build_train_loader
from cots.file_names import MANIFEST_PATH, SHARDS_PATH
from cots.fingerprint import fingerprint
from cots.models.dual_encoder import DualEncoder
from cots.progress import Progress
from cots.training import checkpoint
from cots.training.monitor import Monitor
from cots.training.optim import build_param_groups
from cots.training.trainer import train

ENCODERS, OUT = Path("models/finetuned/image-text"), Path("runs/cross-encoder")
TOKENS = Path("data/tokens")
STEPS, BATCH = 1500, 64
OVERRIDES = {"learning_rate": 0.001, "grad_accum_steps": 1, "frames": 1, "torch_compile": False}  # not as there
EASY, HARD = 1.0, 0.1  # temperatures of drawing negatives: nearly uniform, and that of fine-tuning
CANDIDATES = (10, 50)


class TimedScorer:
    """A cross-encoder over a set of images and texts that measures its own time."""

    def __init__(self, cross: CrossEncoder, images: list[Image.Image], texts: tuple[str, ...], batch_size: int) -> None:
        self.cross, self.images, self.texts, self.batch_size = cross, images, texts, batch_size
        self.seconds_per_pair = 0.0

    def __call__(self, pairs: Ints) -> Floats:
        """Logits of (P, 2) rows of image and text."""
        start = time.perf_counter()
        scores = self.cross.score(self.images, self.texts, pairs, batch_size=self.batch_size)
        self.seconds_per_pair = (time.perf_counter() - start) / len(pairs)
        return scores


class DirectionResult(NamedTuple):
    """The ranks of one direction and the time of a query."""

    name: str
    ranks: Ints
    seconds: float  # for each query


def train_cross_encoder(model: DualEncoder, params: Params, steps: int) -> CrossEncoder:
    """Train a cross-encoder on the training pairs, with the parameters of fine-tuning except for `OVERRIDES`."""
    section = params.finetune["image-text"]
    training = section.model_copy(update=OVERRIDES | {"batch_size": min(section.batch_size, BATCH), "steps": steps})
    torch.manual_seed(training.seed)
    cross = CrossEncoder.of(model)
    if not params.model.image.pretrained:
        cross.joint.reset_blocks()
    schedule = TemperatureSchedule(start=EASY, end=HARD, steps=max(steps // 2, 1))
    objective = ITMObjective(cross.joint, image=model.image, text=model.text, temperature=schedule).to(default_device())
    groups = build_param_groups(objective, weight_decay=training.weight_decay, layer_decay=1.0)
    batches = build_train_loader(MANIFEST_PATH, SHARDS_PATH, TOKENS, model=model, training=training, media=("image",))
    vision = model.config["image"]
    with Progress("cross-encoder", total=steps, unit="steps") as progress:
        train(
            objective,
            torch.optim.AdamW(groups, fused=True),
            batches,
            config=training,
            pixel_stats=(vision["mean"], vision["std"]),
            checkpoint_path=checkpoint.path_of("cross-encoder"),
            fingerprint=fingerprint([model.digest, schedule, training.model_dump(mode="json")], MANIFEST_PATH, TOKENS),
            monitor=Monitor(objective, training, validate=dict),
            on_step=progress.log_step,
        )
    return cross


def evaluation_set(model: DualEncoder, params: Params) -> tuple[EmbeddedSplit, list[Image.Image]]:
    """Embedded images and captions of the evaluation split, and the images themselves."""
    rows = select_part(read_manifest(MANIFEST_PATH), params.evaluate.split, "image")
    samples = list(read_stored_samples(SHARDS_PATH, rows))
    return embed(model, samples, batch_size=params.evaluate.batch_size), [
        decode_frames(sample)[0] for sample in samples
    ]


def two_streams(embedded: EmbeddedSplit) -> tuple[DirectionResult, DirectionResult]:
    """Both directions by the embeddings alone; the time of a query is its encoding and one exact search."""
    start = time.perf_counter()
    i2t, t2i = rank_queries(embedded.items, embedded.texts, embedded.text_to_item)
    search = (time.perf_counter() - start) / (len(i2t.ranks) + len(t2i.ranks))
    return (
        DirectionResult("i2t", i2t.ranks, search + embedded.item_seconds / len(embedded.ids)),
        DirectionResult("t2i", t2i.ranks, search + embedded.text_seconds / len(embedded.captions)),
    )


def show(label: str, direction: DirectionResult) -> None:
    """Print one row."""
    recalls = " ".join(f"{100 * (direction.ranks <= k).mean():6.1f}" for k in RECALL_KS)
    print(f"{label:<28} {direction.name} {recalls} {1000 * direction.seconds:12.2f}")


def main(steps: int = STEPS) -> None:
    """Train, re-rank, and print recalls and the time of a query."""
    if not ENCODERS.is_dir():
        print(f"re-ranking is not measured: there is no {ENCODERS} here, run `dvc repro finetune@image-text`")
        return
    params, model = Params.load(), DualEncoder.load(ENCODERS)
    cross = train_cross_encoder(model, params, steps)
    cross.save(OUT)
    checkpoint.path_of("cross-encoder").unlink(missing_ok=True)
    embedded, images = evaluation_set(model, params)
    by_embeddings = two_streams(embedded)
    print(f"{len(images)} images and {len(embedded.captions)} texts of {params.evaluate.split}, {steps} steps")
    print(f"{'':<28} {'':<3} {'R@1':>6} {'R@5':>6} {'R@10':>6} {'ms per query':>12}")
    for direction in by_embeddings:
        show("two streams", direction)
    scorer = TimedScorer(cross, images, embedded.captions, params.evaluate.batch_size)
    for k in sorted({min(k, len(images)) for k in CANDIDATES}):
        ranks = rerank(embedded.items, embedded.texts, embedded.text_to_item, k=k, score=scorer)
        for before, new in zip(by_embeddings, ranks, strict=True):
            show(
                f"{k} nearest re-ranked",
                DirectionResult(before.name, new, before.seconds + k * scorer.seconds_per_pair),
            )


if __name__ == "__main__":
    with exit_on_error():
        main(*map(int, sys.argv[1:]))
