"""Encoding: images and texts per second, ours and those of open_clip and sentence-transformers, with equal encoders.

Random weights. Images are tensors already; captions of 8 to 23 words are strings, so tokenization, sorting and
padding are included. The other libraries run as their users run them: under bf16 autocast, texts in the given order.
`python -m benchmarks.encoding small` or `base` measures one size only.
"""

import copy
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import Tensor

from benchmarks._peers import open_clip_model
from benchmarks._rounds import Call, interleave
from benchmarks.step import SIZES
from cots.config.params import Params
from cots.data.wordpiece import train_tokenizer
from cots.devices import autocast, default_device
from cots.factory.model import build_model
from cots.models.dual_encoder import DualEncoder
from cots.models.hf_text import HfTextBackbone

CAPTIONS = ["a red star above a blue ring", "two green squares left of a small yellow cross on a grey field"]
BATCH = {"small": (128, 512), "base": (16, 64)}  # images and texts in a round, on a processor
ACCELERATED = (256, 512)


def main(sizes: tuple[str, ...] = ("small", "base"), rounds: int = 5) -> None:
    """Print a table for each size."""
    for size in sizes:
        table(size, rounds=rounds)


def smoke() -> None:
    """One round with small encoders."""
    main(("small",), rounds=1)


def captions(count: int) -> list[str]:
    """Texts of 8 to 23 words."""
    words, rng = " ".join(CAPTIONS).split(), np.random.default_rng(0)
    return [" ".join(rng.choice(words, rng.integers(8, 24))) for _ in range(count)]


def table(size: str, *, rounds: int) -> None:
    """Print images and texts per second, and milliseconds for a single text."""
    num_images, num_texts = BATCH[size] if default_device().type == "cpu" else ACCELERATED
    with tempfile.TemporaryDirectory() as name:
        train_tokenizer(CAPTIONS, vocab_size=1000).save_pretrained(name)
        model = build_model(SIZES[size].model(Params.load()), Path(name)).to(default_device())
        inference_model = copy.deepcopy(model).for_inference()
        peers = {"sentence-transformers": sentence_transformer(model, Path(name), torch.float32)}
        peers["the same in bf16"] = sentence_transformer(model, Path(name), torch.bfloat16)
    clip, tokenizer = open_clip_model(model).eval(), open_clip.SimpleTokenizer(context_length=32)
    side, texts = model.config["image"]["size"], captions(num_texts)
    pixels = torch.randn(num_images, 3, side, side, device=default_device())

    def open_clip_texts(batch: list[str]) -> Tensor:
        embeddings: Tensor = clip.encode_text(tokenizer(batch).to(default_device()))
        return embeddings

    print(f"{size}: {model.config['image']['name']}, {side} px, {torch.get_num_threads()} threads, {rounds} rounds")
    by_image = {
        "ours": within(lambda: inference_model.image(pixels[:, None])),
        "open_clip": within(lambda: clip.encode_image(pixels)),
    }
    report("images", by_image, count=num_images, rounds=rounds)
    by_text = {
        "ours": lambda: inference_model.encode_texts(texts, batch_size=64),
        "open_clip": within(lambda: [open_clip_texts(texts[row : row + 64]) for row in range(0, num_texts, 64)]),
    }
    report("texts", by_text | {name: _all(peer, texts) for name, peer in peers.items()}, count=num_texts, rounds=rounds)
    single: dict[str, Call] = {
        "ours": lambda: inference_model.encode_texts(texts[:1], batch_size=1),
        "ours, as trained": lambda: model.encode_texts(texts[:1], batch_size=1),
        "open_clip": within(lambda: open_clip_texts(texts[:1])),
    }
    report(
        "single text",
        single | {name: _all(peer, texts[:1]) for name, peer in peers.items()},
        count=1,
        rounds=4 * rounds,
    )


def sentence_transformer(model: DualEncoder, folder: Path, dtype: torch.dtype) -> SentenceTransformer:
    """Our text encoder in sentence-transformers."""
    backbone = model.text.backbone
    assert isinstance(backbone, HfTextBackbone)
    backbone.encoder.save_pretrained(folder)
    text_config = model.config["text"]
    encoder = Transformer(str(folder), model_kwargs={"dtype": dtype}, max_seq_length=text_config["max_tokens"])
    return SentenceTransformer(modules=[encoder, Pooling(model.text.backbone.width)])


def within(call: Call) -> Call:
    """The call in inference mode and in the device's precision."""

    def called() -> None:
        with torch.inference_mode(), autocast(default_device()):
            call()

    return called


def report(what: str, calls: dict[str, Call], *, count: int, rounds: int) -> None:
    """Print the rate of each, and how many times as fast ours is."""
    seconds = interleave(calls, rounds=rounds)
    for name, times in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds["ours"], times, strict=True))
        rate = (
            f"{count / statistics.median(times):9.1f}/s" if count > 1 else f"{1000 * statistics.median(times):8.2f} ms"
        )
        print(f"  {what:<10} {name:<22} {rate}   ours is x{ratio:.2f} as fast", flush=True)


def _all(peer: SentenceTransformer, texts: list[str]) -> Call:
    return lambda: peer.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("small", "base"))
