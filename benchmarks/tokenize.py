"""Pictures a second of OpenAI's dVAE encoder: the published module, and ours in the forms that `tokenize` may use.

Random weights at the published size. The variants run in turn, A B A B, so that a machine's changing speed touches all
alike; ratios are medians over rounds against the published module in float32. Codes are compared with its codes.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dall_e
import torch
from torch import Tensor

from cots.model import device
from cots.models.openai_dvae import OpenAiDvae
from cots.models.openai_weights import import_openai_dvae, weights_digest

ROUNDS = 5
PICTURES = 8
SIDE = 112  # pixels: a 14 x 14 grid of codes
Variant = Callable[[], Tensor]


def main() -> None:
    """Print pictures a second, the gain over the published module, and the share of equal codes."""
    torch.manual_seed(0)
    variants = _variants(torch.rand(PICTURES, 3, SIDE, SIDE, device=device()))
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    codes: dict[str, Tensor] = {}
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):  # the first round warms up
            for name, encode in variants.items():
                start = time.perf_counter()
                codes[name] = encode().cpu()
                seconds[name].append(time.perf_counter() - start)
    print(f"OpenAI's encoder at {SIDE} px, batch {PICTURES}, {torch.get_num_threads()} threads, {ROUNDS} rounds")
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["published"][1:], taken[1:], strict=True))
        equal = float((codes[name] == codes["published"]).float().mean())
        rate = PICTURES / statistics.median(taken[1:])
        print(f"{name:<24} {rate:7.2f} pictures/s   x{ratio:.2f}   {equal:.2%} of the codes equal")


def _variants(pixels: Tensor) -> dict[str, Variant]:
    published, ours = _pair()
    _, last = _pair()
    last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels_last = pixels.contiguous(memory_format=torch.channels_last)
    return {
        "published": lambda: published(dall_e.map_pixels(pixels)).argmax(dim=1),
        "ours": lambda: ours.encode(pixels),
        "channels_last": lambda: last.encode(pixels_last),
        "bfloat16, channels_last": lambda: _in_bfloat16(last, pixels_last),
    }


def _in_bfloat16(dvae: OpenAiDvae, pixels: Tensor) -> Tensor:
    with torch.autocast(pixels.device.type, torch.bfloat16):
        return dvae.encode(pixels)


def _pair() -> tuple[torch.nn.Module, OpenAiDvae]:
    """The published encoder and ours with the same weights."""
    torch.manual_seed(0)
    encoder, decoder = dall_e.Encoder(), dall_e.Decoder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(encoder, folder / "encoder.pkl")
        torch.save(decoder, folder / "decoder.pkl")
        ours = import_openai_dvae(folder, sha256=weights_digest(folder), codes=encoder.vocab_size)
    return encoder.eval().to(device()), ours.to(device())
