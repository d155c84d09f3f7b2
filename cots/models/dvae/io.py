"""The folder of a dVAE of either kind: weights, and settings that say which kind it is."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cots.data.object_cache import local_part
from cots.errors import BadInput
from cots.files import atomic_folder
from cots.models.dvae.openai import OpenAiDvae
from cots.models.dvae.vae import Dvae

AnyDvae = Dvae | OpenAiDvae  # both have num_codes, settings, encode and decode
KINDS: dict[str, type[AnyDvae]] = {"own": Dvae, "openai": OpenAiDvae}
WEIGHTS, SETTINGS = "dvae.safetensors", "dvae.json"
CODES = "codes"  # the key of `num_codes` on disk


def save_dvae(dvae: AnyDvae, folder: Path) -> None:
    """Write weights and settings to a folder, replacing it if it exists."""
    (kind,) = (kind for kind, cls in KINDS.items() if type(dvae) is cls)
    weights = {name: value.detach().cpu().contiguous() for name, value in dvae.state_dict().items()}
    with atomic_folder(folder, durable=True) as partial:
        save_file(weights, partial / WEIGHTS)
        settings = {"kind": kind, CODES: dvae.num_codes}
        settings |= {key: value for key, value in dvae.settings.items() if key != "num_codes"}
        (partial / SETTINGS).write_text(json.dumps(settings), encoding="utf8")


def load_dvae(folder: Path) -> AnyDvae:
    """Load a folder that `save_dvae` wrote.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    if not (folder / SETTINGS).is_file():
        raise BadInput(f"no dVAE in {folder}: run `dvc repro train_dvae`")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf8"))
        dvae = KINDS[settings.pop("kind")](num_codes=settings.pop(CODES), **settings)
        dvae.load_state_dict(load_file(local_part(folder / WEIGHTS)))
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{folder} is a damaged dVAE, run `dvc repro --force train_dvae`: {reason}") from None
    return dvae
