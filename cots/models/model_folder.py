"""A model folder on disk: atomic writing, and one-line errors for a damaged one."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cots.data.store import find_part
from cots.errors import BadInput
from cots.files import atomic_folder

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "model.json", "tokenizer"
DIGEST = "digest"  # key of the weights' metadata
# Reading a damaged folder raises these: weights may not fit, and the configuration may be any JSON.
ERRORS = (
    ArithmeticError,
    AttributeError,
    BadInput,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)


def update_digest(sha: "hashlib._Hash", name: str, weight: Tensor) -> None:
    """Add a weight to a digest: its name and its bytes."""
    sha.update(name.encode())
    sha.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


@contextmanager
def model_load_errors(folder: Path, files: Sequence[str], *, kind: str) -> Iterator[None]:
    """Turn errors inside the block into one line that names the model folder.

    Args:
        folder: the folder that is loaded; files: names that must be in it.
        kind: of model, for the message.

    Raises:
        BadInput: a file is missing, or the block raised an error of reading it.
    """
    missing = [name for name in files if not (folder / name).exists() and find_part(folder / name) is None]
    if missing:
        raise BadInput(f"{folder} is not a {kind}: no {', '.join(missing)} in it")
    try:
        yield
    except ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadInput(f"{folder} is a damaged {kind}: {reason}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a model folder, which holds all that its encoders need.

    Raises:
        BadInput: it refers to a hub or to another folder, which nobody asked to load.
    """
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf8"))
    for section in ("image", "text"):
        values = config[section]
        if values["pretrained"] or not {"/", ":"}.isdisjoint(values["name"]) or "checkpoint_path" in values["options"]:
            raise BadInput(f"{section} in {CONFIG} refers to weights outside of the folder ({values['name']})")
    return config


def save_model_folder(
    folder: Path,
    *,
    weights: tuple[str, dict[str, Tensor]],
    config: tuple[str, dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a model folder atomically.

    Args:
        folder: replaced if it exists.
        weights: file name and tensors; config: file name and values.
        tokenizer: written to a subfolder.
        metadata: of the weights file, which can be read without the weights.
    """
    with atomic_folder(folder, durable=True) as partial:
        tensors = {key: value.cpu().contiguous() for key, value in weights[1].items()}
        save_file(tensors, partial / weights[0], metadata=metadata)
        (partial / config[0]).write_text(json.dumps(config[1], indent=1, sort_keys=True), encoding="utf8")
        tokenizer.save_pretrained(partial / TOKENIZER)
