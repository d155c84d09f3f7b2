"""The Python interface to encoders: loads them, encodes images and texts, and saves, uploads and exports them."""

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]
from numpy.typing import NDArray

from cots.api.inputs import (
    ImageInput,
    ImageInputs,
    folder_path,
    is_one_image,
    read_images,
    read_name,
    read_texts,
    require_count,
)
from cots.digests import MLMODEL
from cots.errors import BadInput, RunFailed
from cots.models.dual_encoder import DualEncoder
from cots.models.hf_files import summarize_error
from cots.models.loading import is_uri, load_model
from cots.models.model_folder import CONFIG
from cots.models.two_tower.loading import fetch
from cots.registry.cards import MODEL_CARD, unmeasured_card

BATCH_SIZE = 64


class Model:
    """An image encoder and a text encoder whose vectors are compared by dot product; `cots.load` gives one.

    Args:
        encoders: freshly loaded; they are converted for inference.
        name: what they were loaded from.
    """

    def __init__(self, encoders: DualEncoder, name: str) -> None:
        self.name = name
        self.encoders = encoders.for_inference()

    @property
    def dim(self) -> int:
        """Dimension of the vectors (D)."""
        return self.encoders.dim

    @property
    def digest(self) -> str:
        """SHA-256 of weights and configuration: models with equal digests give equal vectors."""
        return self.encoders.digest

    def encode_images(self, images: ImageInputs, *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Vectors of images, each of length one.

        Images may have any size, orientation, depth and colour: they are turned upright as their EXIF says, transparent
        parts become white, grey levels of 16 bits are scaled.

        Args:
            images: a path, the bytes of a file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4); or several
                images: a list, a generator, or an array (N, H, W, C). Arrays hold uint8, uint16, bool, or floats from
                0 to 1.
            batch_size: images encoded at a time.

        Returns:
            float32, (N, D); (D,) for a single image that is not in a list.

        Raises:
            BadInput: an image cannot be used, or is none; the message says which one and why.
        """
        require_count("batch_size", batch_size)
        if is_one_image(images):
            [vector] = self.encode_images([cast("ImageInput", images)], batch_size=batch_size)
            return cast("NDArray[np.float32]", vector)
        return self.encoders.encode_images(read_images(images), batch_size=batch_size)

    def encode_texts(self, texts: str | Iterable[str], *, batch_size: int = BATCH_SIZE) -> NDArray[np.float32]:
        """Vectors of texts, each of length one; texts are truncated to the model's maximum of tokens.

        Args:
            texts: a string, or several strings.
            batch_size: texts encoded at a time.

        Returns:
            float32, (N, D); (D,) for a single string.

        Raises:
            BadInput: a text is no string, or not UTF-8.
        """
        require_count("batch_size", batch_size)
        if isinstance(texts, str):
            [vector] = self.encode_texts([texts], batch_size=batch_size)
            return cast("NDArray[np.float32]", vector)
        return self.encoders.encode_texts(read_texts(texts), batch_size=batch_size)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that `classify` tells apart; none if the model has no classification head."""
        return self.encoders.classes

    def classify(
        self,
        images: ImageInputs | None = None,
        texts: str | Iterable[str] | None = None,
        *,
        batch_size: int = BATCH_SIZE,
    ) -> NDArray[np.float32]:
        """How probable the model finds each of its `classes`, by images, by texts, or by both.

        Args:
            images: as for `encode_images`; None: by the texts alone.
            texts: as for `encode_texts`, that of the first image first; None: by the images alone.
            batch_size: encoded at a time.

        Returns:
            float32, (N, C), rows add up to 1; (1, C) for a single image or text.

        Raises:
            BadInput: the model has no classification head, nothing is given, or images and texts differ in number.
        """
        if not self.classes:
            raise BadInput(f"{self.name} has no classification head: train it with loss_weights.classification")
        items = None if images is None else np.atleast_2d(self.encode_images(images, batch_size=batch_size))
        captions = None if texts is None else np.atleast_2d(self.encode_texts(texts, batch_size=batch_size))
        if items is None and captions is None:
            raise BadInput("nothing to classify: give images, texts, or both")
        if items is not None and captions is not None and len(items) != len(captions):
            raise BadInput(f"{len(items)} images and {len(captions)} texts: give a text for each image")
        return self.encoders.class_probabilities(items, captions)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write weights (safetensors), configuration, tokenizer and model card to a folder that `cots.load` reads.

        Args:
            folder: a new folder, or one that holds a model, which is replaced.

        Raises:
            BadInput: the folder holds other files, or the model's source has changed since it was loaded.
        """
        folder = _check_output(folder, CONFIG)
        with TemporaryDirectory() as scratch:
            card = _find_card(self.name, Path(scratch))
        encoders = self._reload()
        encoders.save(folder)
        (folder / MODEL_CARD).write_text(card or unmeasured_card(encoders.config, self.digest), encoding="utf8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Add COTS encoders",
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub; `cots.load(repo_id)` reads it again.

        Args:
            repo_id: `owner/name`; created if it does not exist.
            private: whether a new repository is private; by default what the owner's settings say.
            token: access token of the hub; by default that of `hf auth login`.
            revision: branch to commit to; by default the main branch.
            commit_message: the commit's message.

        Returns:
            Address of the commit.

        Raises:
            BadInput: `repo_id` is not the name of a repository.
            RunFailed: the hub refuses or cannot be reached.
        """
        if not isinstance(repo_id, str):
            raise BadInput(f"repo_id is {type(repo_id).__name__}: give owner/name")
        hub = HfApi(token=token)
        with TemporaryDirectory() as scratch:
            self.save_pretrained(Path(scratch) / "model")
            try:
                hub.create_repo(repo_id, private=private, exist_ok=True)
                commit = hub.upload_folder(
                    repo_id=repo_id,
                    folder_path=Path(scratch) / "model",
                    revision=revision,
                    commit_message=commit_message,
                )
            except HFValidationError as error:
                raise BadInput(f"{repo_id} is no name of a repository: {summarize_error(error)}") from None
            except (httpx.HTTPError, OSError) as error:
                raise RunFailed(f"the hub {hub.endpoint} does not take {repo_id}: {summarize_error(error)}") from None
        return str(commit.commit_url)

    def export_onnx(self, folder: str | os.PathLike[str]) -> None:
        """Write both encoders as ONNX files, with configuration and tokenizer; see `cots.models.onnx_export`.

        Args:
            folder: a new folder, or one that holds such an export, which is replaced.

        Raises:
            BadInput: the extra `onnx` is not installed, the folder holds other files, or the model's source has changed
                since it was loaded.
        """
        from cots.models.onnx_export import TEXT_ONNX, export_onnx

        export_onnx(self._reload(), _check_output(folder, TEXT_ONNX))

    def _reload(self) -> DualEncoder:
        """Load the encoders again, because `for_inference` may have rounded the weights of these."""
        encoders = _load_encoders(self.name)
        if encoders.digest != self.digest:
            raise BadInput(f"{self.name} has changed since it was loaded: load it again")
        return encoders


def load(name: str | os.PathLike[str]) -> Model:
    """Load encoders.

    Args:
        name: a folder of a trained model (`models/finetuned/image-text`), a registered version
            (`models:/cots-index@champion`, `models:/cots-encoders/3`), a name on the Hugging Face hub
            (`openai/clip-vit-base-patch32`, or one that `push_to_hub` wrote), or a checkpoint of CLIP or SigLIP in a
            folder or a file.

    Raises:
        BadInput: there is no such model, or it cannot be used.
        RunFailed: the registry is down.
    """
    name = read_name(name, "a model")
    if is_uri(name):
        from cots.tracking.loading import resolve_alias  # imports MLflow

        name = resolve_alias(name)
    return Model(_load_encoders(name), name)


def from_pretrained(repo_id: str, *, revision: str | None = None, token: str | None = None) -> Model:
    """Load encoders from the Hugging Face hub, or from its cache if there is no network.

    Args:
        repo_id: `owner/name` of a repository that `push_to_hub` wrote, or of a checkpoint of CLIP or SigLIP.
        revision: a branch, tag or commit; by default the main branch.
        token: access token of the hub; by default that of `hf auth login`.

    Raises:
        BadInput: there is no such model.
    """
    return load(fetch(read_name(repo_id, "a model"), revision=revision, token=token))


def _find_card(name: str, scratch: Path) -> str | None:
    """The model card beside the weights, with what was measured after training; None if there is none."""
    folder = Path(name).expanduser()
    if _needs_mlflow(name):
        from cots.tracking.loading import fetch_model_folder  # imports MLflow

        folder = fetch_model_folder(name, into=scratch)
    elif not (folder / CONFIG).is_file():
        return None
    card = folder / MODEL_CARD
    return card.read_text(encoding="utf8") if card.is_file() else None


def _check_output(folder: str | os.PathLike[str], marker: str) -> Path:
    """Check that writing to a folder replaces nothing but an earlier output, and return its path.

    Args:
        folder: to be written.
        marker: name of a file that every earlier output holds.

    Raises:
        BadInput: the folder holds other files, or no folder can have such a name.
    """
    path = folder_path(folder)
    if path.exists() and not (path / marker).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BadInput(f"{path} has other files: give a new folder")
    return path


def _load_encoders(name: str) -> DualEncoder:
    if not _needs_mlflow(name):
        return load_model(name)
    from cots.tracking.loading import load_encoders  # imports MLflow

    return load_encoders(name)


def _needs_mlflow(name: str) -> bool:
    return is_uri(name) or (Path(name).expanduser() / MLMODEL).is_file()
