"""`cots doctor`: checks whether this machine and environment can run the project."""

import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import typer

from cots.cli.tables import table
from cots.errors import CotsError, machine_refusal
from cots.launch import ENGINE_VARIABLE, uses_ray

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "webdataset",
    "faiss-cpu",
    "great-expectations",
    "dvc",
    "mlflow",
    "prefect",
    "fastapi",
    "sqlalchemy",
)


DVC_ADVICE = {  # what to do, by DVC's words
    "not a git repository": ": run `git init`, or `dvc config core.no_scm true` to use DVC without git",
    "uid not found": ": set the variable USER to any name",
}
IN_USE = ("is busy, it is being blocked by", "Unable to acquire lock")  # DVC's words while another command runs


class BrokenError(Exception):
    """A failed check; the message says what to do."""


def doctor() -> None:
    """Check params.yaml, versions, conflicts, processor, MLflow, DVC, store, engine; exit code 1 if one is broken."""
    rows = [[name, *_outcome(check)] for name, check in CHECKS.items()]
    typer.echo(table(["check", "", "found"], rows))
    typer.echo("\n" + table(["package", "version"], [[name, _version(name)] for name in PACKAGES]))
    if any(outcome == "BROKEN" for _, outcome, _ in rows):
        raise typer.Exit(1)


def _outcome(check: Callable[[], str]) -> tuple[str, str]:
    try:
        return "ok", check()
    except (BrokenError, CotsError) as error:
        return "BROKEN", str(error)
    except Exception as error:
        if (refusal := machine_refusal(error)) is None:
            raise
        return "BROKEN", refusal


def _python() -> str:
    return f"{sys.version.split()[0]}"


def _params() -> str:
    from cots.config.params import Params

    Params.load()  # all sections; a stage checks only those that it reads
    return "params.yaml is valid"


def _torchvision() -> str:
    try:
        importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenError(
            f"timm does not import ({reason}): torch and torchvision must come from the same package index"
        ) from None
    return "timm imports: torch and torchvision match"


def _fastapi() -> str:
    if not (0, 139) <= _numbers("fastapi") < (0, 151):
        raise BrokenError(f"fastapi {_version('fastapi')}: Prefect flows fail at import, they need >=0.139,<0.151")
    return "flows can start"


def _sqlalchemy() -> str:
    if not (2, 0) <= _numbers("sqlalchemy") < (2, 1):
        raise BrokenError(f"sqlalchemy {_version('sqlalchemy')}: Prefect schedules never fire, they need >=2.0,<2.1")
    return "schedules fire"


def _processor() -> str:
    import torch

    from cots.container_limits import available_cores

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver that does not fit shows below as a missing accelerator
        accelerator = torch.accelerator.current_accelerator(check_available=True)
    features = torch.cpu.get_capabilities()
    native = features.get("avx512_bf16") or features.get("amx_bf16")
    device = f"accelerator {accelerator}" if accelerator else "no accelerator"
    return f"{available_cores()} cores, {torch.get_num_threads()} threads, bf16 {'yes' if native else 'no'}, {device}"


def _mlflow() -> str:
    from cots.tracking.store import connect, tracking_uri, without_credentials

    connect()
    return without_credentials(tracking_uri())


def _dvc() -> str:
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    status = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if any(words in status.stderr for words in IN_USE):
        return "a run or another command uses this folder: ask again when it has ended"
    if status.returncode:
        reason = status.stderr.strip().partition("\n")[0] or f"dvc status ended with exit code {status.returncode}"
        raise BrokenError("".join([reason, *(advice for words, advice in DVC_ADVICE.items() if words in reason)]))
    stale = [stage for stage, changes in json.loads(status.stdout).items() if changes != ["always changed"]]
    return f"out of date: {', '.join(stale)}; run `dvc repro`" if stale else "everything is up to date"


def _store() -> str:
    from cots.data.store_upkeep import count_objects, require_objects

    require_objects(Path())
    counts = count_objects(Path())
    return (
        "; ".join(f"{count} objects in {store}" for store, count in counts.items())
        or "data are in the project's folder"
    )


def _engine() -> str:
    if not uses_ray():
        return "stages run on this machine"
    if find_spec("ray") is None:
        raise BrokenError(f"{ENGINE_VARIABLE}=ray needs ray: run `pip install 'cots[cluster]'`")
    return f"stages run in the Ray cluster {os.environ.get('RAY_ADDRESS', 'that Ray finds or starts here')}"


CHECKS = {
    "python": _python,
    "params": _params,
    "torchvision": _torchvision,
    "fastapi": _fastapi,
    "sqlalchemy": _sqlalchemy,
    "processor": _processor,
    "mlflow": _mlflow,
    "dvc": _dvc,
    "store": _store,
    "engine": _engine,
}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _numbers(name: str) -> tuple[int, ...]:
    parts = _version(name).split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())
