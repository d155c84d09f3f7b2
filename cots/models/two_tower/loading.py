"""Loads CLIP and SigLIP into this project's model.

The text tower is transformers', the image tower timm's vision transformer. So weights of OpenAI and open_clip get
transformers' names first, and those of the image tower then get timm's.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError

from cots.devices import default_device
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder
from cots.models.hf_files import summarize_error
from cots.models.two_tower.checkpoint import Checkpoint
from cots.models.two_tower.open_clip import read_open_clip
from cots.models.two_tower.renaming import strip_prefix
from cots.models.two_tower.transformers_folder import read_transformers

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
NEEDED_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin", "open_clip_pytorch_model.bin"]
MASK = "backbone.mask_embedding"
LOAD_ERRORS = (AssertionError, AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError)


def load_two_tower(name: str, path: Path | None = None) -> DualEncoder:
    """Load CLIP or SigLIP: both towers, projections, tokenizer, temperature and bias.

    The embeddings equal those of the library that stored it. The model's `config` has the temperature,
    exp(-logit_scale), and for SigLIP the bias of the logits. The mask token, which no checkpoint has, is zero.

    Args:
        name: a name on the Hugging Face hub, a folder of transformers or open_clip, or a file of weights in the
            format of OpenAI or open_clip.
        path: local path, if it has been fetched already.

    Raises:
        BadInput: there is no such checkpoint, it has another architecture, or its parts do not fit together.
    """
    checkpoint = read_checkpoint(name, path or fetch(name))
    try:
        model = DualEncoder.build(checkpoint.config, checkpoint.tokenizer)
        for tower in ("image", "text"):
            encoder = getattr(model, tower)
            weights, initial = strip_prefix(checkpoint.weights, f"{tower}."), encoder.state_dict()
            raise_if_incomplete(name, tower, expected=initial.keys() - {MASK}, present=weights.keys())
            if MASK in initial:
                weights[MASK] = torch.zeros_like(initial[MASK])
            encoder.load_state_dict(weights)
    except LOAD_ERRORS as error:
        raise BadInput(f"{name} does not fit its own configuration: {summarize_error(error)}") from None
    return model.to(default_device())


def raise_if_incomplete(name: str, tower: str, *, expected: Iterable[str], present: Iterable[str]) -> None:
    """Raise `BadInput` if a tower lacks weights, or has unknown ones."""
    missing, unknown = sorted(set(expected) - set(present)), sorted(set(present) - set(expected))
    if missing:
        raise BadInput(f"{name} lacks {len(missing)} weights of the {tower} tower, such as {missing[0]}")
    if unknown:
        raise BadInput(f"{name} has {len(unknown)} unknown weights in the {tower} tower, such as {unknown[0]}")


def read_checkpoint(name: str, path: Path) -> Checkpoint:
    """Read a checkpoint in any of the formats.

    Args:
        name: for messages.
        path: folder or file.

    Raises:
        BadInput: it is no checkpoint, or has another architecture.
    """
    try:
        if path.is_file():
            return read_open_clip(name, path, {}, path.parent)
        if (path / OPEN_CLIP_CONFIG).is_file():
            file = next((path / name for name in OPEN_CLIP_WEIGHTS if (path / name).is_file()), None)
            if file is None:
                raise BadInput(f"{name} has {OPEN_CLIP_CONFIG} and no {OPEN_CLIP_WEIGHTS[0]}")
            return read_open_clip(name, file, json.loads((path / OPEN_CLIP_CONFIG).read_text(encoding="utf8")), path)
        if (path / "config.json").is_file():
            return read_transformers(name, path)
    except LOAD_ERRORS as error:
        raise BadInput(f"{name} is a damaged checkpoint: {summarize_error(error)}") from None
    raise BadInput(f"{name} is no checkpoint of CLIP or SigLIP: it has neither config.json nor {OPEN_CLIP_CONFIG}")


def fetch(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """The local folder or file of a checkpoint, downloaded from the hub or taken from its cache.

    Args:
        name: a path, or a name on the hub.
        revision: branch, tag or commit on the hub; by default the main branch.
        token: access token of the hub; by default that of `hf auth login`, if there is one.

    Raises:
        BadInput: there is no such checkpoint, or the hub does not answer and its cache lacks it.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=NEEDED_FILES))
    except HFValidationError:
        raise BadInput(f"no checkpoint {name}: no such folder or file, and no name of the hub") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        offline = "; without a network, give a model's folder" if isinstance(error, LocalEntryNotFoundError) else ""
        reason = f"no such folder, and the hub does not give it: {summarize_error(error)}{offline}"
        raise BadInput(f"no checkpoint {name}: {reason}") from None
