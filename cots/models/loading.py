"""Loads a model that is not registered, without MLflow: from a folder, a file, or the Hugging Face hub."""

from cots.models.dual_encoder import DualEncoder
from cots.models.model_folder import CONFIG
from cots.models.two_tower.loading import fetch, load_two_tower


def is_uri(name: str) -> bool:
    """Whether MLflow knows how to fetch a model, as opposed to a path or a name of the Hugging Face hub."""
    return "://" in name or name.startswith(("models:/", "runs:/"))


def load_model(name: str) -> DualEncoder:
    """Load a model of this project, or a checkpoint of CLIP or SigLIP.

    Args:
        name: a folder such as `models/finetuned/image-text`, a name on the hub to which such a folder was pushed, or a
            checkpoint as `load_two_tower` describes it (`openai/clip-vit-base-patch32`).

    Raises:
        BadInput: there is no such model, or it is damaged or of another architecture.
    """
    path = fetch(name)
    return DualEncoder.load(path) if (path / CONFIG).is_file() else load_two_tower(name, path)
