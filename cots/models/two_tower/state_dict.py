"""Reads the weights in a file without running any code that it contains."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cots.errors import BadInput
from cots.models.hf_files import summarize_error
from cots.models.pickled import PickledFormat, read_pickled
from cots.models.two_tower.renaming import Weights

TORCHSCRIPT = PickledFormat("CLIP", modules=("__torch__.",), max_bytes=2**33)  # ViT-L/14 at 336 px takes 1.7 GB


def read_state_dict(name: str, file: Path) -> Weights:
    """Read the weights in a file as float32.

    Raises:
        BadInput: they cannot be read without running code.
    """
    try:
        if file.suffix == ".safetensors":
            weights: Weights = load_file(file)
        elif is_torchscript(file):
            weights = read_pickled(file, TORCHSCRIPT)
        else:
            stored: Any = torch.load(file, weights_only=True, mmap=zipfile.is_zipfile(file))
            weights = stored.get("state_dict", stored)
        return {
            key.removeprefix("module."): value.float() if value.is_floating_point() else value
            for key, value in weights.items()
        }
    except BadInput:
        raise
    except Exception as error:  # torch.load raises errors of any type
        raise BadInput(f"{name} is no readable file of weights: {summarize_error(error)}") from None


def is_torchscript(file: Path) -> bool:
    """Whether `torch.jit.save` wrote the file, as OpenAI did; loading it with torch would run its code."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
