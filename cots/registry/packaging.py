"""Writes the trained encoders and the index as MLflow models that load without a project checkout."""

import importlib.metadata
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import cots
from cots.data.bucket import in_bucket
from cots.data.store import store_of
from cots.digests import write_sums
from cots.files import atomic_folder
from cots.import_closure import data_files, import_closure
from cots.search_engine.queries import DEFAULT_K, DEFAULT_MEDIA

# Imports needed to answer a query; a test compares this list with the actual imports.
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
    """Inference settings of a packaged model; `load_model(..., model_config=...)` overrides them.

    Attributes:
        batch_size: texts or images encoded together.
        max_pixels: images with more pixels are refused without decoding.
        min_side: images with a shorter side are refused, pixels.
    """

    batch_size: int
    max_pixels: int
    min_side: int


def save_encoders(folder: Path, encoders: Path, *, dim: int, config: InferenceConfig, cards: Mapping[str, str]) -> None:
    """Write the MLflow model `cots-encoders`: texts or images in, embeddings with unit rows out."""
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, dim))])
    _save(
        folder, "cots.registry.pyfunc_encoders", {"encoders": encoders}, ModelSignature(outputs=outputs), config, cards
    )


def save_index(folder: Path, encoders: Path, index: Path, *, config: InferenceConfig, cards: Mapping[str, str]) -> None:
    """Write the MLflow model `cots-index`, the index with its encoders: queries in, ranked results out."""
    item = {"id": "a", "captions": ["a ring"], "media": "image", "split": "test"}
    result = {"rank": 1, "score": 0.5, **item, "row": 0, "frame": 0, "best_caption": 0}
    outputs = infer_signature(model_output=[[result]]).outputs
    params = ParamSchema([ParamSpec("k", "long", DEFAULT_K), ParamSpec("media", "string", DEFAULT_MEDIA)])
    signature = ModelSignature(outputs=outputs, params=params)
    _save(folder, "cots.registry.pyfunc_index", {"encoders": encoders, "index": index}, signature, config, cards)


def pinned_requirements(artifacts: Iterable[Path]) -> list[str]:
    """`REQUIREMENTS` pinned to the installed versions, without local suffixes such as `+cpu`, which PyPI lacks.

    Args:
        artifacts: folders of the model; `s3fs` is added if files of one are kept in a bucket.
    """
    in_buckets = any(store is not None and in_bucket(store) for store in map(store_of, artifacts))
    names = (*REQUIREMENTS, *(("s3fs",) if in_buckets else ()))
    return [f"{name}=={_installed_version(name).partition('+')[0]}" for name in names]


def _installed_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version(name.replace("-cpu", "-gpu"))  # the extra `gpu` replaces faiss-cpu


def _save(
    folder: Path,
    module: str,
    artifacts: Mapping[str, Path],
    signature: ModelSignature,
    config: InferenceConfig,
    cards: Mapping[str, str],
) -> None:
    """Save an MLflow model with only those `cots` modules that its code needs, so unrelated changes do not alter it.

    The signature has no inputs: with optional columns MLflow 3.17 makes an empty table of a list of texts, drops
    unknown columns that `QueryReader` refuses, and refuses a `k` in some rows only.
    """
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    root = Path(cots.__file__).parents[1]
    modules = import_closure([module], root)
    with atomic_folder(folder) as partial, TemporaryDirectory() as code:
        for file in {*modules.values(), *data_files(modules.values())}:
            copy = Path(code) / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        mlflow.pyfunc.save_model(
            partial,
            python_model=str(modules[module]),
            code_paths=[str(Path(code) / cots.__name__)],
            artifacts={name: str(path) for name, path in artifacts.items()},
            signature=signature,
            input_example=EXAMPLE,
            pip_requirements=pinned_requirements(artifacts.values()),
            model_config={"batch": config.batch_size, "max_pixels": config.max_pixels, "min_side": config.min_side},
        )
        write_sums(partial)
        for name, text in cards.items():
            (partial / name).write_text(text, encoding="utf8")
