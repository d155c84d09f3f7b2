"""Import of OpenAI's dVAE: pickled modules as published, or safetensors."""

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cots.errors import BadInput
from cots.models.dvae.openai import OpenAiDvae
from cots.models.pickled import PickledFormat, read_pickled

PICKLED = PickledFormat("dVAE", modules=("dall_e.", "torch.nn.modules."), max_bytes=2**30)  # published: 0.2 GB
PARTS = ("encoder", "decoder")
RENAMED = (  # names in the published modules to ours; our names match none of these patterns
    (r"^blocks\.", ""),
    (r"\.res_path\.", ".path."),
    (r"\.id_path\.", ".shortcut."),
    (r"^output\.conv\.", "output."),
    (r"\.w$", ".weight"),
    (r"\.b$", ".bias"),
)


def import_openai_dvae(folder: Path, *, sha256: str, num_codes: int) -> OpenAiDvae:
    """OpenAI's dVAE with weights from a folder.

    Args:
        folder: with `encoder.pkl` and `decoder.pkl` as published, or the same two in safetensors (under the published
            names or ours), or only `dvae.safetensors`, as in models/dvae.
        sha256: of the concatenated files: `cat encoder.pkl decoder.pkl | sha256sum`.
        num_codes: size of the codebook.

    Raises:
        BadInput: the files are missing, have another digest, or are not the weights of such a dVAE.
    """
    files = weight_files(folder)
    if (digest := weights_digest(folder)) != sha256:
        names = ", ".join(file.name for file in files)
        raise BadInput(
            f"{names} in {folder} have sha256 {digest}, not {sha256}: give the right files, or set dvae.sha256 to the"
            " actual digest"
        )
    if len(files) == 1:
        weights = _load_safetensors(files[0])
    else:
        weights = {f"{part}.{name}": w for part, file in zip(PARTS, files, strict=True) for name, w in _load_part(file)}
    dvae = _build_dvae(weights, folder)
    if dvae.num_codes != num_codes:
        raise BadInput(f"dvae.codebook_size is {num_codes}, the weights in {folder} have {dvae.num_codes}")
    return dvae


def weight_files(folder: Path) -> list[Path]:
    """`dvae.safetensors`, or the encoder's and the decoder's file.

    Raises:
        BadInput: there are none, or they are too large.
    """
    candidates = [
        [folder / "dvae.safetensors"],
        *([folder / f"{part}{kind}" for part in PARTS] for kind in READERS),
    ]
    paths = next((files for files in candidates if all(file.is_file() for file in files)), None)
    if paths is None:
        raise BadInput(
            f"no OpenAI dVAE in {folder}: dvae.path names the folder with encoder.pkl and decoder.pkl (from"
            " github.com/openai/DALL-E), or the same two as .safetensors"
        )
    for file in paths:
        if file.stat().st_size > PICKLED.max_bytes:
            raise BadInput(f"{file} has {file.stat().st_size} bytes: a dVAE has at most {PICKLED.max_bytes}")
    return paths


def weights_digest(folder: Path) -> str:
    """SHA-256 of the folder's concatenated weight files, in hexadecimal."""
    sha = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                sha.update(block)
    return sha.hexdigest()


def _load_part(file: Path) -> list[tuple[str, Tensor]]:
    weights = READERS[file.suffix](file)
    for pattern, replacement in RENAMED:
        weights = {re.sub(pattern, replacement, name): weight for name, weight in weights.items()}
    return list(weights.items())


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{file} is not a safetensors file, or damaged: {str(error).splitlines()[0]}") from None
    return weights


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _load_safetensors,
    ".pkl": partial(read_pickled, form=PICKLED),
}


def _build_dvae(weights: dict[str, Tensor], folder: Path) -> OpenAiDvae:
    """The dVAE of the sizes of these weights; built on the meta device first, so that wrong shapes cost no memory."""
    try:
        sizes = {
            "num_codes": weights["encoder.output.weight"].shape[0],
            "hidden": weights["encoder.input.weight"].shape[0],
            "start": weights["decoder.input.weight"].shape[0],
            "blocks": len({name.split(".")[2] for name in weights if name.startswith("encoder.group_1.block_")}),
        }
        with torch.device("meta"):
            dvae = OpenAiDvae(**sizes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"{folder} does not hold the weights of an OpenAI dVAE: no usable {error}") from None
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    expected = {name: tuple(weight.shape) for name, weight in dvae.state_dict().items()}
    mismatched = sorted(name for name in shapes | expected if shapes.get(name) != expected.get(name))
    if mismatched:
        first, more = mismatched[0], f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        raise BadInput(
            f"{folder} does not hold the weights of an OpenAI dVAE: {first} is {shapes.get(first, 'absent')},"
            f" expected {expected.get(first, 'none')}{more}"
        )
    if not all(weight.is_floating_point() for weight in weights.values()):
        raise BadInput(f"{folder} does not hold the weights of an OpenAI dVAE: some are not floating-point numbers")
    dvae.load_state_dict({name: weight.float().contiguous() for name, weight in weights.items()}, assign=True)
    return dvae.eval().requires_grad_(False)
