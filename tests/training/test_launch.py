"""Stages in several processes, from the shell: their outputs, and the state after one process dies."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from cots.config.params import Params
from cots.factory.model import build_model
from tests.servers import free_port, waited_for
from tests.training.conftest import run, tiny_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STAGE = "cots.stages.pretrain"
SECONDS = 300


@pytest.fixture
def project(tmp_path: Path, store: str, tiny_data: Path, tokenized: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters of a run long enough to be interrupted."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, tiny_data: Path, tokenized: Path) -> Path:
    """Outputs of an uninterrupted run in one process, by the real interpreter."""
    folder = tmp_path_factory.mktemp("whole")
    write_params(folder, steps=3)
    shutil.copy(empty_store, folder / "mlflow.db")
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    done = run_command([sys.executable, *command(tiny_data, tokenized, "out")], 1, folder=folder, **own)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def write_params(folder: Path, *, save: str = "online", **changes: object) -> None:
    """Write parameters of a run long enough to be interrupted, with changes to `pretrain`."""
    params = tiny_params(pretrain={"steps": 16, "checkpoint_every": 4} | changes, objective={"save": save})
    (folder / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))


def command(data: Path, tokenized: Path, out: str) -> list[str]:
    inputs = [data / "shards", data / "manifest.parquet", tokenized / "tokens", tokenized / "tokenizer"]
    outputs = [f"{out}/model", f"{out}/report", f"{out}/run.json"]
    return ["-m", "cots.launch", STAGE, *map(str, [*inputs, *outputs])]


def environment(processes: object) -> dict[str, str]:
    return os.environ | {"COTS_PROCESSES": str(processes), "OMP_NUM_THREADS": "1"}


def run_command(
    arguments: list[str], processes: object, *, folder: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=folder,
        env=environment(processes) | changes,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def find_second(folder: Path) -> list[psutil.Process]:
    """The second process of the stage that is running in a folder."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if STAGE in process.cmdline() and process.cwd() == str(folder) and process.environ().get("RANK") == "1":
                processes.append(process)
    return processes


@pytest.mark.parametrize(("sharded", "later"), [(False, 1), (True, 1), (True, 2)])
def test_a_killed_process_ends_the_run_which_goes_on_with_another_number_of_them(
    project: Path, tiny_data: Path, tokenized: Path, fork_python: str, whole: Path, sharded: bool, later: int
) -> None:
    write_params(project, fsdp=sharded)
    run = [fork_python, *command(tiny_data, tokenized, "killed")]
    process = subprocess.Popen(run, env=environment(2), stderr=subprocess.PIPE, text=True)
    [victim] = waited_for(lambda: find_second(project))
    checkpoint = project / "runs/checkpoints/pretrain.pt"
    waited_for(checkpoint.is_file)
    victim.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith(f"error: {STAGE}: one of 2 processes ended early")
    assert checkpoint.is_file()
    assert not (project / "killed" / "model").exists()

    again = run_command(run, later)
    assert again.returncode == 0, again.stderr
    assert not checkpoint.exists()
    mine, theirs = (load_file(out / "model/model.safetensors") for out in (project / "killed", whole))
    assert mine.keys() == theirs.keys()
    assert all(mine[key].shape == value.shape for key, value in theirs.items())
    assert (project / "killed" / "run.json").is_file()
    assert (project / "killed" / "report" / "pairs.parquet").is_file()


@pytest.mark.parametrize("count", ["0", "two", "-1", ""])
def test_a_number_of_processes_that_is_none_is_reported_in_one_line(
    project: Path, tiny_data: Path, tokenized: Path, count: str
) -> None:
    done = run_command([sys.executable, *command(tiny_data, tokenized, "out")], count)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: COTS_PROCESSES={count}: give a whole number from 1"]


def test_tokens_are_the_same_whoever_makes_them(
    project: Path, tiny_data: Path, tokenized: Path, fork_python: str
) -> None:
    inputs = [tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "dvae", "tokens", "tokenizer"]
    done = run_command([fork_python, "-m", "cots.launch", "cots.stages.tokenize", *map(str, inputs)], 2)
    assert done.returncode == 0, done.stderr
    paths = sorted(path.relative_to(tokenized / "tokens") for path in (tokenized / "tokens").rglob("*.safetensors"))
    assert paths
    for path in paths:
        assert (project / "tokens" / path).read_bytes() == (tokenized / "tokens" / path).read_bytes()


def test_more_micro_batches_than_a_rank_has_pairs_are_reported_in_one_line_if_weights_are_sharded(
    project: Path, tiny_data: Path, tokenized: Path, fork_python: str
) -> None:
    write_params(project, fsdp=True, grad_accum_steps=3)
    done = run_command([fork_python, *command(tiny_data, tokenized, "out")], 2)
    assert done.returncode == 1
    message = "error: a batch of 4 in 3 micro-batches for 2 processes: start fewer, or raise batch_size\n"
    assert message in done.stderr  # the other process may have begun the line


@pytest.mark.parametrize("save", ["online", "ema"])
def test_a_run_with_sharded_weights_leaves_the_encoders_of_a_run_without(
    project: Path, tiny_data: Path, tokenized: Path, fork_python: str, save: str
) -> None:
    write_params(project, save=save, fsdp=True, steps=3)
    done = run_command([fork_python, *command(tiny_data, tokenized, "sharded")], 2)
    assert done.returncode == 0, done.stderr
    run(tiny_data, tokenized, project / "common", Params.load())
    weights = {out: load_file(project / out / "model/model.safetensors") for out in ("common", "sharded")}
    torch.manual_seed(0)
    begun = build_model(tiny_params().model, tokenized / "tokenizer")
    start = {
        f"{name}.{key}": value for name in ("image", "text") for key, value in getattr(begun, name).state_dict().items()
    }
    assert start.keys() == weights["common"].keys() == weights["sharded"].keys()
    moved, apart = (
        sum(float((weights[a][key] - other[key]).double().square().sum()) for key in start)
        for a, other in (("common", start), ("sharded", weights["common"]))
    )
    assert apart < 0.1 * moved  # AdamW makes much of the rounding of small gradients


@pytest.mark.parametrize(("set_before", "count"), [(None, 1), (None, 2), ("glibc.malloc.check=1", 1)])
def test_a_stage_asks_for_huge_pages_unless_the_allocator_is_set_already(
    tmp_path: Path, set_before: str | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tunables.py").write_text(
        "import os, sys; open(sys.argv[1] + os.environ.get('RANK', '0'), 'w').write(os.environ['GLIBC_TUNABLES'])"
    )
    (tmp_path / "ray.py").write_text("raise SystemExit('only the engine may import Ray')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if set_before:
        monkeypatch.setenv("GLIBC_TUNABLES", set_before)
    done = run_command([sys.executable, "-m", "cots.launch", "tunables", str(tmp_path / "out")], count)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out0").read_text() == (set_before or "glibc.malloc.hugetlb=1")
    assert (tmp_path / f"out{count - 1}").is_file()


@pytest.mark.parametrize("engine", ["", "ray"])
def test_a_process_that_another_launcher_started_as_one_of_several_is_that_one(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ranked.py").write_text("import os; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.getpid())")
    (tmp_path / "ray.py").write_text("raise SystemExit('Ray is not asked')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    own = environment(2) | {"RANK": "3", "WORLD_SIZE": "4", "COTS_ENGINE": engine}
    command = [sys.executable, "-m", "cots.launch", "ranked"]
    process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True)
    printed, _ = process.communicate(timeout=SECONDS)
    assert printed.split() == ["3", "4", str(process.pid)]


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ("spark", "error: COTS_ENGINE=spark: set it to ray, or do not set it"),
        ("ray", "error: this needs ray: run `pip install 'cots[cluster]'`"),
    ],
)
def test_an_engine_that_is_unknown_or_not_installed_is_reported_in_one_line(
    tmp_path: Path, engine: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('No module named ray', name='ray')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    done = run_command([sys.executable, "-m", "cots.launch", "unknown"], 2, COTS_ENGINE=engine)
    assert (done.returncode, done.stderr.splitlines()) == (2, [line])


def test_two_machines_with_folders_of_their_own_go_on_from_one_checkpoint_or_refuse(
    project: Path, tiny_data: Path, tokenized: Path, fork_python: str
) -> None:
    folders = [project / "first", project / "second"]
    for folder in folders:
        folder.mkdir()
        write_params(folder, steps=12)
    checkpoint = folders[0] / "runs/checkpoints/pretrain.pt"
    agents = start_agents(fork_python, folders, tiny_data, tokenized)
    waited_for(checkpoint.is_file)
    waited_for(lambda: find_second(folders[1]))[0].send_signal(signal.SIGKILL)
    assert all(code for code, _ in outcomes(agents))
    assert not (folders[1] / "runs/checkpoints/pretrain.pt").exists()
    interrupted = checkpoint.read_bytes()

    write_params(folders[1], steps=12, learning_rate=0.5)
    refused = outcomes(start_agents(fork_python, folders, tiny_data, tokenized))
    assert all(code for code, _ in refused)
    refusal = "error: process 1 of 2 has other parameters, start weights or data than process 0: copy params.yaml"
    assert any(line.startswith(refusal) for _, errors in refused for line in errors.splitlines())
    assert checkpoint.read_bytes() == interrupted

    write_params(folders[1], steps=12)
    resumed = outcomes(start_agents(fork_python, folders, tiny_data, tokenized))
    assert [code for code, _ in resumed] == [0, 0], resumed
    curves = pd.read_csv(folders[0] / "out/report/curves.csv")
    assert curves["step"].tolist() == list(range(12))
    assert "checkpoints differ (steps [" in resumed[0][1]


def start_agents(python: str, folders: list[Path], data: Path, tokenized: Path) -> list[subprocess.Popen[str]]:
    """One torchrun agent with one process for each folder, as on machines of their own."""
    address = ["--nnodes", str(len(folders)), "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    return [
        subprocess.Popen(
            [
                python,
                "-m",
                "torch.distributed.run",
                *address,
                "--node-rank",
                str(number),
                *command(data, tokenized, "out"),
            ],
            cwd=folder,
            env=environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate(folders)
    ]


def outcomes(agents: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and error output of each agent, when it has ended."""
    return [(agent.returncode, errors) for agent in agents for _, errors in [agent.communicate(timeout=SECONDS)]]
