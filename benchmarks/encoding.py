"""Encoding: our pictures and texts a second against open_clip's and sentence-transformers', at equal towers.

Random weights. Pictures are tensors already; captions of 8 to 23 words go in as text, so that tokenization, sorting and
padding count. Peers run as their users run them: under bf16 autocast, texts in the order in which they come.
`python -m benchmarks.encoding small` or `base` measures one size alone.
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
from benchmarks._rounds import Call, in_turn
from benchmarks.step import SIZES
from cots.config.params import Params
from cots.data.wordpiece import train_tokenizer
from cots.devices import autocast, default_device
from cots.factory.model import build_model
from cots.models.dual_encoder import DualEncoder
from cots.models.hf_text import HfTextBackbone

CAPTIONS = ["a red star above a blue ring", "two green squares left of a small yellow cross on a grey field"]
BATCH = {"small": (128, 512), "base": (16, 64)}  # pictures, texts of a round on a processor
ACCELERATED = (256, 512)


def main(sizes: tuple[str, ...] = ("small", "base"), rounds: int = 5) -> None:
    """Print a table for each size."""
    for size in sizes:
        table(size, rounds=rounds)


def smoke() -> None:
    """One round of small streams."""
    main(("small",), rounds=1)


def captions(count: int) -> list[str]:
    """Texts of 8 to 23 words."""
    words, rng = " ".join(CAPTIONS).split(), np.random.default_rng(0)
    return [" ".join(rng.choice(words, rng.integers(8, 24))) for _ in range(count)]


def table(size: str, *, rounds: int) -> None:
    """Print pictures and texts a second, and milliseconds of a text alone."""
    pictures, texts = BATCH[size] if default_device().type == "cpu" else ACCELERATED
    with tempfile.TemporaryDirectory() as name:
        train_tokenizer(CAPTIONS, vocab_size=1000).save_pretrained(name)
        model = build_model(SIZES[size].model(Params.load()), Path(name)).to(default_device())
        ready = copy.deepcopy(model).for_inference()
        peers = {"sentence-transformers": sentences(model, Path(name), torch.float32)}
        peers["the same in bf16"] = sentences(model, Path(name), torch.bfloat16)
    clip, tokenizer = open_clip_model(model).eval(), open_clip.SimpleTokenizer(context_length=32)
    side, asked = model.config["image"]["size"], captions(texts)
    pixels = torch.randn(pictures, 3, side, side, device=default_device())

    def by_clip(words: list[str]) -> Tensor:
        found: Tensor = clip.encode_text(tokenizer(words).to(default_device()))
        return found

    print(f"{size}: {model.config['image']['name']}, {side} px, {torch.get_num_threads()} threads, {rounds} rounds")
    images = {
        "ours": within(lambda: ready.image(pixels[:, None])),
        "open_clip": within(lambda: clip.encode_image(pixels)),
    }
    told("pictures", images, count=pictures, rounds=rounds)
    by_text = {
        "ours": lambda: ready.encode_texts(asked, batch_size=64),
        "open_clip": within(lambda: [by_clip(asked[row : row + 64]) for row in range(0, texts, 64)]),
    }
    told("texts", by_text | {name: _all(peer, asked) for name, peer in peers.items()}, count=texts, rounds=rounds)
    alone: dict[str, Call] = {
        "ours": lambda: ready.encode_texts(asked[:1], batch_size=1),
        "ours, as trained": lambda: model.encode_texts(asked[:1], batch_size=1),
        "open_clip": within(lambda: by_clip(asked[:1])),
    }
    told(
        "text alone", alone | {name: _all(peer, asked[:1]) for name, peer in peers.items()}, count=1, rounds=4 * rounds
    )


def sentences(model: DualEncoder, folder: Path, dtype: torch.dtype) -> SentenceTransformer:
    """Our text encoder in sentence-transformers."""
    backbone = model.text.backbone
    assert isinstance(backbone, HfTextBackbone)
    backbone.encoder.save_pretrained(folder)
    settings = model.config["text"]
    encoder = Transformer(str(folder), model_kwargs={"dtype": dtype}, max_seq_length=settings["max_tokens"])
    return SentenceTransformer(modules=[encoder, Pooling(model.text.backbone.width)])


def within(call: Call) -> Call:
    """In inference mode and the device's precision."""

    def called() -> None:
        with torch.inference_mode(), autocast(default_device()):
            call()

    return called


def told(what: str, calls: dict[str, Call], *, count: int, rounds: int) -> None:
    """Print the rate of each and how many times faster ours is."""
    seconds = in_turn(calls, rounds=rounds)
    for name, taken in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds["ours"], taken, strict=True))
        rate = (
            f"{count / statistics.median(taken):9.1f}/s" if count > 1 else f"{1000 * statistics.median(taken):8.2f} ms"
        )
        print(f"  {what:<10} {name:<22} {rate}   ours is x{ratio:.2f} as fast", flush=True)


def _all(peer: SentenceTransformer, texts: list[str]) -> Call:
    return lambda: peer.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("small", "base"))
