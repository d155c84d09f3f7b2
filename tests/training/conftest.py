"""Inputs of a tiny training run: dVAE, crop views, tokenizer, parameters."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from cots.config.params import Params
from cots.config.sections import read_yaml
from cots.factory.model import build_model
from cots.models.dvae.io import save_dvae
from cots.models.dvae.vae import Dvae
from cots.progress import Progress
from cots.training import checkpoint
from cots.training.fit import Inputs, fit
from tests.additions import write_annotated
from tests.servers import free_port, serving

TINY: dict[str, dict[str, Any]] = {
    "dvae": {"codebook_size": 16, "width": 8, "steps": 4, "batch_size": 4, "checkpoint_every": 2},
    "tokenize": {"crops_per_image": 2, "batch_size": 4},
    "pretrain": {"steps": 6, "batch_size": 4, "warmup_steps": 1, "checkpoint_every": 2},
}
PIXELS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))  # mean and standard deviation
NO_TOKENS = {"instance": 1.0, "token": 0.0, "task": 1.0, "masked_views": 0.0}
OBJECTIVE: dict[str, Any] = {
    "in_batch_negatives": "momentum",
    "queue_size": 10,
    "queue_warmup_steps": 0,
    "filter": {"warmup_steps": 2, "num_std": 1.0, "momentum": 0.9},
}
BOTH = ("image", "video")


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Within this context a training run ends as if killed when it logs `step`; it must come that far."""

    def raise_at_step(_: Progress, metrics: dict[str, float]) -> None:
        if metrics["step"] == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "log_step", raise_at_step)
        with pytest.raises(Killed):
            yield


@dataclass
class MlflowServer:
    """A tracking server with its database and files in the folder, which is the working folder."""

    address: str
    folder: Path
    python: str

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within this context the server answers; it may be started again later."""
        options = ["--backend-store-uri", "sqlite:///s.db", "--artifacts-destination", "kept", "--workers", "1"]
        command = [self.python, "-m", "mlflow", "server", "--port", self.address.rpartition(":")[2], *options]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with serving(command, answers=f"{self.address}/health", folder=self.folder, environment=environment):
            yield


@pytest.fixture
def mlflow_server(
    tmp_path: Path, empty_store: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MlflowServer]:
    shutil.copy(empty_store, tmp_path / "s.db")
    monkeypatch.chdir(tmp_path)
    server = MlflowServer(f"http://127.0.0.1:{free_port()}", tmp_path, fork_python)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield server
    mlflow.set_tracking_uri("")


def run(data: Path, tokenized: Path, out: Path, params: Params) -> Path:
    """Pre-train in the working folder; `out`, which then has `model` and `report`."""
    torch.manual_seed(params.pretrain.seed)
    model = build_model(params.model, tokenized / "tokenizer")
    inputs = Inputs(data / "shards", data / "manifest.parquet", tokenized / "tokens")
    fit(model, inputs, out / "report", name="pretrain", training=params.pretrain, num_codes=16, media=BOTH)
    model.save(out / "model")
    checkpoint.remove("pretrain")
    return out


def tiny_params(**changes: dict[str, Any]) -> Params:
    """The committed parameters with sizes for a test; `changes` are merged into sections and pretrain's objective."""
    values = read_yaml(Path(__file__).parents[2] / "params.yaml")
    values["model"] |= {"dim": 16}
    values["model"]["image"] |= {"size": 32, "options": {"embed_dim": 32, "depth": 1, "num_heads": 2}}
    sizes: dict[str, float] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    values["model"]["text"] |= {"vocab_size": 100, "options": sizes}
    objective = values["pretrain"].pop("objective") | OBJECTIVE | changes.pop("objective", {})
    for section in (TINY, changes):
        for name, part in section.items():
            values[name] |= part
    whole = values["pretrain"] | {"size": 32, "objective": objective | {"loss_weights": NO_TOKENS}}
    values["finetune"] = {"image-text": whole, "video-text": whole | {"frames": 2, "batch_size": 3}}
    values["pretrain"] = {"objective": objective} | values["pretrain"]
    return Params.model_validate(values)


@pytest.fixture(scope="session")
def tokenized(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A folder with `dvae`, `tokens` and `tokenizer` for `tiny_data`; not to be written to."""
    from cots.stages.tokenize import stage

    folder = tmp_path_factory.mktemp("tokenized")
    torch.manual_seed(0)
    save_dvae(Dvae(num_codes=16, hidden=8, blocks=1), folder / "dvae")
    paths = (
        tiny_data / "shards",
        tiny_data / "manifest.parquet",
        folder / "dvae",
        folder / "tokens",
        folder / "tokenizer",
    )
    stage(*paths, params=tiny_params())
    return folder


@pytest.fixture(scope="session")
def annotated_data(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """`tiny_data` with languages, classes and captions made from these; not to be written to."""
    return write_annotated(tiny_data, tmp_path_factory.mktemp("annotated") / "data")
