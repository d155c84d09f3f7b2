"""Trained model and index as MLflow model folders that load with no project checkout."""

import importlib.metadata
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import cots
from cots.files import atomic_folder
from cots.import_closure import data_files, import_closure
from cots.search.queries import DEFAULT_K, DEFAULT_MEDIA

# What answering a query imports; a test holds it against what is imported.
REQUIREMENTS = (
    "mlflow",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "tokenizers",
    "safetensors",
    "faiss-cpu",
    "numpy",
    "pandas",
    "pyarrow",
    "pillow",
)
EXAMPLE = ["a picture of a ring", "two things beside each other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """What a packaged model is run with; can be overridden with `load_model(..., model_config=...)`.

    Attributes:
        batch: texts or pictures encoded at once.
        max_pixels: larger pictures are refused unopened.
        min_side: smaller pictures are refused, pixels.
    """

    batch: int
    max_pixels: int
    min_side: int


def save_encoders(folder: Path, encoders: Path, *, dim: int, limits: InferenceConfig, cards: Mapping[str, str]) -> None:
    """Write the MLflow model `cots-encoders`: texts or pictures in, unit rows out."""
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, dim))])
    _save(
        folder, "cots.registry.pyfunc_encoders", {"encoders": encoders}, ModelSignature(outputs=outputs), limits, cards
    )


def save_index(folder: Path, encoders: Path, index: Path, *, limits: InferenceConfig, cards: Mapping[str, str]) -> None:
    """Write the MLflow model `cots-index`: the index and the encoders that made it; queries in, ranked results out."""
    item = {"id": "a", "captions": ["a ring"], "media": "image", "split": "test"}
    result = {"rank": 1, "score": 0.5, **item, "row": 0, "frame": 0}
    outputs = infer_signature(model_output=[[result]]).outputs
    params = ParamSchema([ParamSpec("k", "long", DEFAULT_K), ParamSpec("media", "string", DEFAULT_MEDIA)])
    signature = ModelSignature(outputs=outputs, params=params)
    _save(folder, "cots.registry.pyfunc_index", {"encoders": encoders, "index": index}, signature, limits, cards)


def requirements() -> list[str]:
    """`REQUIREMENTS` with the versions installed here; local parts such as `+cpu` left out, no index has them."""
    return [f"{name}=={_installed(name).partition('+')[0]}" for name in REQUIREMENTS]


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version(name.replace("-cpu", "-gpu"))  # the extra `gpu` replaces faiss-cpu


def _save(
    folder: Path,
    module: str,
    artifacts: Mapping[str, Path],
    signature: ModelSignature,
    limits: InferenceConfig,
    cards: Mapping[str, str],
) -> None:
    """Inputs stay out of the signature: MLflow's schema has a list of texts or a table, not both.

    Of `cots` the files that the module needs travel with it, so that a change elsewhere leaves the model as it is.
    """
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    root = Path(cots.__file__).parents[1]
    modules = import_closure([module], root)
    with atomic_folder(folder) as aside, TemporaryDirectory() as code:
        for file in {*modules.values(), *data_files(modules.values())}:
            copy = Path(code) / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        mlflow.pyfunc.save_model(
            aside,
            python_model=str(modules[module]),
            code_paths=[str(Path(code) / cots.__name__)],
            artifacts={name: str(path) for name, path in artifacts.items()},
            signature=signature,
            input_example=EXAMPLE,
            pip_requirements=requirements(),
            model_config={"batch": limits.batch, "max_pixels": limits.max_pixels, "min_side": limits.min_side},
        )
        for name, text in cards.items():
            (aside / name).write_text(text, encoding="utf8")
