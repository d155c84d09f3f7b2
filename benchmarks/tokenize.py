"""Images per second of OpenAI's dVAE encoder: the published module, and ours in the forms that stage `tokenize` uses.

Random weights at the published size. The variants are interleaved; ratios to the published module in float32 are
medians over rounds. Codes are compared with those of that module.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import dall_e
import torch
from torch import Tensor

from benchmarks._rounds import interleave, times_faster
from cots.devices import default_device
from cots.models.dvae.openai import OpenAiDvae
from cots.models.dvae.openai_weights import import_openai_dvae, weights_digest

Variant = Callable[[], Tensor]


def main(rounds: int = 5, images: int = 0, side: int = 112) -> None:
    """Print images per second, the ratio to the published module, and the fraction of equal codes.

    Args:
        rounds: number of measured rounds.
        images: encoded at once; 0 stands for 8, or 128 on an accelerator.
        side: of an image, pixels; 112 makes a 14 x 14 grid of codes.
    """
    torch.manual_seed(0)
    images = images or (8 if default_device().type == "cpu" else 128)
    variants = _variants(torch.rand(images, 3, side, side, device=default_device()))
    with torch.inference_mode():
        codes = {name: encode().cpu() for name, encode in variants.items()}
        seconds = interleave(variants, rounds=rounds)
    print(f"OpenAI's encoder at {side} px, batch {images}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, ratio in times_faster(seconds, than="published").items():
        equal = float((codes[name] == codes["published"]).float().mean())
        rate = images / statistics.median(seconds[name])
        print(f"{name:<24} {rate:7.2f} images/s   x{ratio:.2f}   {equal:.2%} of the codes equal")


def smoke() -> None:
    """One round with two small images."""
    main(rounds=1, images=2, side=32)


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
        ours = import_openai_dvae(folder, sha256=weights_digest(folder), num_codes=encoder.vocab_size)
    return encoder.eval().to(default_device()), ours.to(default_device())


if __name__ == "__main__":
    main()
