"""The paper's headline: how much faster two streams search COCO's test set than a single stream.

Both have the same width, depth, image size and precision. The single stream scores all 5,000 x 25,000 pairs; its passes
are timed on a few pairs and extrapolated, and its patch embeddings, all that it can compute before, are computed once.
Timings are interleaved, and results are medians over rounds.

`python -m benchmarks.single_stream demo` or `base` measures one size only: the encoders of params.yaml, or ViT-B/16
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

from benchmarks._rounds import interleave
from benchmarks._single_stream.cross_encoder import CrossEncoder
from cots.config.model import ModelConfig
from cots.config.params import Params
from cots.data.wordpiece import train_tokenizer
from cots.devices import autocast, default_device
from cots.factory.model import build_model
from cots.index.embedding_index import EmbeddingIndex
from cots.models.dual_encoder import DualEncoder

IMAGES, TEXTS, CLAIM = 5_000, 25_000, 10_800
CAPTION_TOKENS = 15  # 13 words and two special tokens, the length of COCO's captions
RERANKED = 10


class Batches(NamedTuple):
    """How many images, texts and pairs are computed at once in a round."""

    images: int
    texts: int
    pairs: int


SIZES = {"demo": Batches(images=64, texts=256, pairs=64), "base": Batches(images=8, texts=32, pairs=8)}


class Timed(NamedTuple):
    """Seconds of each operation: medians over rounds."""

    image: float  # to encode one of a batch
    text: float  # to encode one of a batch
    search: float  # for the ten nearest of all queries, in both directions
    patches: float  # for the patch embedding of one image
    pair: float  # for one joint pass of a batch
    query: float  # to encode a single text
    find: float  # for its ten nearest images
    rerank: float  # for joint passes with these ten


def section(size: str) -> ModelConfig:
    """The model section for a size, without pretrained weights."""
    model = Params.load().model
    if size == "demo":
        return model
    vit = {"name": "vit_base_patch16_224", "pretrained": False, "size": 224, "patch": 16, "stem": "linear"}
    image = model.image.model_copy(update=vit | {"pool": "class", "options": {}})
    bert = {"name": "bert", "pretrained": False, "pool": "class", "options": {}}
    return model.model_copy(update={"dim": 256, "image": image, "text": model.text.model_copy(update=bert)})


def build_both(size: str) -> tuple[DualEncoder, CrossEncoder]:
    """Both models with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=1000).save_pretrained(folder)
        model = build_model(section(size), Path(folder)).to(default_device())
    cross = CrossEncoder.of(model)
    for part in (model.image, model.text, cross.joint):
        part.eval()
    return model, cross


def passes(model: DualEncoder, cross: CrossEncoder, batches: Batches) -> dict[str, Callable[[], object]]:
    """The calls to time, by the fields of `Timed`; each does the work of one round."""
    device, size = default_device(), model.config["image"]["size"]
    frames = torch.randn(batches.images, 1, 3, size, size, device=device)
    input_ids, attention_mask = random_texts(len(model.tokenizer), max(batches.texts, batches.pairs))
    patches = cross.joint.patches(frames)
    rows = torch.arange(max(batches.pairs, RERANKED)) % batches.images
    items, texts = unit_rows(IMAGES, model.dim), unit_rows(TEXTS, model.dim)
    index, text_index = EmbeddingIndex.build(items, "Flat"), EmbeddingIndex.build(texts, "Flat")

    def joint_passes(pairs: int) -> Tensor:
        return cross.joint.score_pairs(patches[rows[:pairs]], input_ids[:pairs], attention_mask[:pairs])

    return {
        "image": lambda: model.image(frames),
        "text": lambda: model.text(input_ids[: batches.texts], attention_mask[: batches.texts]),
        "search": lambda: (text_index.search(items, 10), index.search(texts, 10)),
        "patches": lambda: cross.joint.patches(frames),
        "pair": lambda: joint_passes(batches.pairs),
        "query": lambda: model.text(input_ids[:1], attention_mask[:1]),
        "find": lambda: index.search(texts[:1], 10),
        "rerank": lambda: joint_passes(RERANKED),
    }


def measure_size(size: str, *, rounds: int) -> Timed:
    """Medians over interleaved rounds."""
    batches = SIZES[size]
    batch_sizes = {"image": batches.images, "text": batches.texts, "patches": batches.images, "pair": batches.pairs}
    with torch.inference_mode(), autocast(default_device()):
        calls = passes(*build_both(size), batches)
        seconds = interleave(calls, rounds=rounds)
    return Timed(**{name: statistics.median(times) / batch_sizes.get(name, 1) for name, times in seconds.items()})


def random_texts(vocab: int, count: int) -> tuple[Tensor, Tensor]:
    """(count, CAPTION_TOKENS) random token ids without padding."""
    input_ids = torch.randint(5, vocab, (count, CAPTION_TOKENS), device=default_device())
    return input_ids, torch.ones_like(input_ids, dtype=torch.bool)


def unit_rows(count: int, dim: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(count, dim) random unit rows."""
    rows = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32)
    normalized: np.ndarray[tuple[int, int], np.dtype[np.float32]] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalized


def show(size: str, seconds: Timed, *, rounds: int) -> None:
    """Print the times for the whole test set, then for one query against images encoded before."""
    encoding = (IMAGES * seconds.image + TEXTS * seconds.text, IMAGES * seconds.patches)
    search = (seconds.search, IMAGES * TEXTS * seconds.pair)
    two, single = (sum(pair) for pair in zip(encoding, search, strict=True))
    model = section(size)
    print(f"{size}: {model.image.name}, {model.image.size} px; {torch.get_num_threads()} threads, {rounds} rounds")
    rates = [f"{1 / value:,.1f}" for value in (seconds.image, seconds.text, seconds.pair)]
    print("  per second: {} images, {} texts, {} pairs".format(*rates))
    print(f"  a test set of {IMAGES:,} images and {TEXTS:,} texts, both directions, seconds:")
    print(f"  {'':<44} {'encoding':>12} {'search':>15} {'total':>15}")
    print(f"  {'two streams':<44} {encoding[0]:12,.1f} {search[0]:15,.2f} {two:15,.1f}")
    joint = f"single stream, {IMAGES * TEXTS / 1e6:.0f} M passes (extrapolated)"
    print(f"  {joint:<44} {encoding[1]:12,.1f} {search[1]:15,.0f} {single:15,.0f}")
    print(f"  two streams are x{single / two:,.0f} as fast; the paper claims x{CLAIM:,} against VinVL, another network")
    query, exhaustive = seconds.query + seconds.find, IMAGES * seconds.pair
    print(f"  one text against {IMAGES:,} images encoded before, milliseconds:")
    print(f"  {'two streams':<44} {1000 * query:12,.2f}   of which search {1000 * seconds.find:.2f}")
    print(f"  {f'two streams, {RERANKED} nearest re-ranked':<44} {1000 * (query + seconds.rerank):12,.2f}")
    print(f"  {'single stream (extrapolated)':<44} {1000 * exhaustive:12,.0f}   x{exhaustive / query:,.0f}")


def main(sizes: tuple[str, ...] = tuple(SIZES), rounds: int = 5) -> None:
    """Measure and print each size."""
    for size in sizes:
        show(size, measure_size(size, rounds=rounds), rounds=rounds)


def smoke() -> None:
    """One round at the size of params.yaml."""
    main(("demo",), rounds=1)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or tuple(SIZES))
