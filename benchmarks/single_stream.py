"""The paper's headline: how much sooner two streams have searched COCO's test set than a single stream.

Both sides have the same width, depth, picture size and precision. The single stream judges all 5,000 x 25,000 pairs;
its passes are timed on a few pairs and multiplied. All that it can prepare, the patch embeddings, is prepared.
Timings run in turn, so that a machine's changing speed touches all alike; figures are medians over rounds.

`python -m benchmarks.single_stream demo` or `base` measures one size alone: the streams of params.yaml, or ViT-B/16
with BERT-base at 224 pixels.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks._rounds import in_turn
from benchmarks._single_stream.cross_encoder import CrossEncoder
from cots.config.model import ModelConfig
from cots.config.params import Params
from cots.data.wordpiece import train_tokenizer
from cots.devices import autocast, default_device
from cots.factory.model import build_model
from cots.index.embedding_index import EmbeddingIndex
from cots.models.dual_encoder import DualEncoder

PICTURES, TEXTS, CLAIM = 5_000, 25_000, 10_800
WORDS = 15  # 13 words and two special tokens, the length of COCO's captions
RERANKED = 10


class Batches(NamedTuple):
    """How many are computed at once, and timed in a round."""

    pictures: int
    texts: int
    pairs: int


SIZES = {"demo": Batches(pictures=64, texts=256, pairs=64), "base": Batches(pictures=8, texts=32, pairs=8)}


class Timed(NamedTuple):
    """Seconds: medians over rounds."""

    picture: float  # one of a batch, through the image stream
    text: float  # likewise
    search: float  # everything's ten nearest, both ways
    patches: float  # one picture's patch embedding
    pair: float  # one joint pass of a batch
    query: float  # one text alone through the text stream
    find: float  # its ten nearest pictures
    rerank: float  # joint passes with these ten


def section(size: str) -> ModelConfig:
    """The model section of a size, from random weights."""
    model = Params.load().model
    if size == "demo":
        return model
    vit = {"name": "vit_base_patch16_224", "pretrained": False, "size": 224, "patch": 16, "stem": "linear"}
    image = model.image.model_copy(update=vit | {"pool": "class", "options": {}})
    bert = {"name": "bert", "pretrained": False, "pool": "class", "options": {}}
    return model.model_copy(update={"dim": 256, "image": image, "text": model.text.model_copy(update=bert)})


def built(size: str) -> tuple[DualEncoder, CrossEncoder]:
    """Both sides with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=1000).save_pretrained(folder)
        model = build_model(section(size), Path(folder)).to(default_device())
    cross = CrossEncoder.of(model)
    for part in (model.image, model.text, cross.joint):
        part.eval()
    return model, cross


def passes(model: DualEncoder, cross: CrossEncoder, batches: Batches) -> dict[str, Callable[[], object]]:
    """What is timed, by the fields of `Timed`; each call does the work of one round."""
    where, size = default_device(), model.config["image"]["size"]
    frames = torch.randn(batches.pictures, 1, 3, size, size, device=where)
    ids, attended = words(len(model.tokenizer), max(batches.texts, batches.pairs))
    patches = cross.joint.patches(frames)
    rows = torch.arange(max(batches.pairs, RERANKED)) % batches.pictures
    items, texts = unit_rows(PICTURES, model.dim), unit_rows(TEXTS, model.dim)
    index, text_index = EmbeddingIndex.build(items, "Flat"), EmbeddingIndex.build(texts, "Flat")

    def judged(pairs: int) -> Tensor:
        return cross.joint.judge(patches[rows[:pairs]], ids[:pairs], attended[:pairs])

    return {
        "picture": lambda: model.image(frames),
        "text": lambda: model.text(ids[: batches.texts], attended[: batches.texts]),
        "search": lambda: (text_index.search(items, 10), index.search(texts, 10)),
        "patches": lambda: cross.joint.patches(frames),
        "pair": lambda: judged(batches.pairs),
        "query": lambda: model.text(ids[:1], attended[:1]),
        "find": lambda: index.search(texts[:1], 10),
        "rerank": lambda: judged(RERANKED),
    }


def timed(size: str, *, rounds: int) -> Timed:
    """Medians over interleaved rounds."""
    batches = SIZES[size]
    at_once = {"picture": batches.pictures, "text": batches.texts, "patches": batches.pictures, "pair": batches.pairs}
    with torch.inference_mode(), autocast(default_device()):
        calls = passes(*built(size), batches)
        seconds = in_turn(calls, rounds=rounds)
    return Timed(**{name: statistics.median(taken) / at_once.get(name, 1) for name, taken in seconds.items()})


def words(vocab: int, count: int) -> tuple[Tensor, Tensor]:
    """(count, WORDS) random ids without padding."""
    ids = torch.randint(5, vocab, (count, WORDS), device=default_device())
    return ids, torch.ones_like(ids, dtype=torch.bool)


def unit_rows(count: int, dim: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(count, dim) random directions."""
    rows = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32)
    unit: np.ndarray[tuple[int, int], np.dtype[np.float32]] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def show(size: str, one: Timed, *, rounds: int) -> None:
    """Print the whole test set, then one query against prepared pictures."""
    encoding = (PICTURES * one.picture + TEXTS * one.text, PICTURES * one.patches)
    search = (one.search, PICTURES * TEXTS * one.pair)
    two, single = (sum(pair) for pair in zip(encoding, search, strict=True))
    model = section(size)
    print(f"{size}: {model.image.name}, {model.image.size} px; {torch.get_num_threads()} threads, {rounds} rounds")
    rates = [f"{1 / seconds:,.1f}" for seconds in (one.picture, one.text, one.pair)]
    print("  per second: {} pictures, {} texts, {} pairs".format(*rates))
    print(f"  a test set of {PICTURES:,} pictures and {TEXTS:,} texts, both directions, seconds:")
    print(f"  {'':<44} {'encoding':>12} {'search':>15} {'total':>15}")
    print(f"  {'two streams':<44} {encoding[0]:12,.1f} {search[0]:15,.2f} {two:15,.1f}")
    joint = f"single stream, {PICTURES * TEXTS / 1e6:.0f} M passes (reckoned)"
    print(f"  {joint:<44} {encoding[1]:12,.1f} {search[1]:15,.0f} {single:15,.0f}")
    print(f"  two streams are x{single / two:,.0f} faster; the paper claims x{CLAIM:,} against VinVL, another network")
    query, exhaustive = one.query + one.find, PICTURES * one.pair
    print(f"  one text against {PICTURES:,} prepared pictures, milliseconds:")
    print(f"  {'two streams':<44} {1000 * query:12,.2f}   of which search {1000 * one.find:.2f}")
    print(f"  {f'two streams, {RERANKED} nearest re-ranked':<44} {1000 * (query + one.rerank):12,.2f}")
    print(f"  {'single stream (reckoned)':<44} {1000 * exhaustive:12,.0f}   x{exhaustive / query:,.0f}")


def main(sizes: tuple[str, ...] = tuple(SIZES), rounds: int = 5) -> None:
    """Measure and print each size."""
    for size in sizes:
        show(size, timed(size, rounds=rounds), rounds=rounds)


def smoke() -> None:
    """One round at the size of params.yaml."""
    main(("demo",), rounds=1)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or tuple(SIZES))
