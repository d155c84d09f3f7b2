"""Stages in several processes, from the shell: what they write, and what is left when one of them dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from safetensors.torch import load_file

from tests.servers import waited_for
from tests.training.conftest import tiny_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STAGE = "cots.stages.pretrain"
SECONDS = 300


@pytest.fixture
def project(tmp_path: Path, store: str, tiny_data: Path, tokenized: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to train in, long enough to be interrupted."""
    monkeypatch.chdir(tmp_path)
    values = tiny_params(pretrain={"steps": 120, "checkpoint_every": 5}).model_dump(mode="json", by_alias=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def command(data: Path, tokenized: Path, out: str) -> list[str]:
    inputs = [data / "shards", data / "manifest.parquet", tokenized / "tokens", tokenized / "tokenizer"]
    outputs = [f"{out}/model", f"{out}/report", f"{out}/run.json"]
    return [sys.executable, "-m", "cots.launch", STAGE, *map(str, [*inputs, *outputs])]


def environment(processes: object) -> dict[str, str]:
    return os.environ | {"COTS_PROCESSES": str(processes), "OMP_NUM_THREADS": "1"}


def ended(arguments: list[str], processes: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=environment(processes), capture_output=True, text=True, check=False, timeout=SECONDS
    )


def second(parent: int) -> list[psutil.Process]:
    """The second process of the stage."""
    children = psutil.Process(parent).children(recursive=True)
    return [one for one in children if STAGE in one.cmdline() and one.environ().get("RANK") == "1"]


def test_a_killed_process_ends_the_run_which_goes_on_with_another_number_of_them(
    project: Path, tiny_data: Path, tokenized: Path
) -> None:
    whole = ended(command(tiny_data, tokenized, "whole"), 1)
    assert whole.returncode == 0, whole.stderr

    run = command(tiny_data, tokenized, "killed")
    process = subprocess.Popen(run, env=environment(2), stderr=subprocess.PIPE, text=True)
    checkpoint = project / "runs/checkpoints/pretrain.pt"
    waited_for(checkpoint.is_file)
    waited_for(lambda: second(process.pid))[0].send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith(f"error: {STAGE}: one of 2 processes ended early")
    assert checkpoint.is_file()
    assert not (project / "killed" / "model").exists()

    again = ended(run, 1)
    assert again.returncode == 0, again.stderr
    assert not checkpoint.exists()
    mine, theirs = (load_file(project / out / "model/model.safetensors") for out in ("killed", "whole"))
    assert mine.keys() == theirs.keys()
    assert (project / "killed" / "run.json").is_file()
    assert (project / "killed" / "report" / "pairs.parquet").is_file()


@pytest.mark.parametrize("count", ["0", "two", "-1", ""])
def test_a_number_of_processes_that_is_none_is_told_in_one_line(
    project: Path, tiny_data: Path, tokenized: Path, count: str
) -> None:
    done = ended(command(tiny_data, tokenized, "out"), count)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: COTS_PROCESSES={count}: give a whole number from 1"]


def test_tokens_are_the_same_whoever_makes_them(project: Path, tiny_data: Path, tokenized: Path) -> None:
    inputs = [tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "dvae", "tokens", "tokenizer"]
    done = ended([sys.executable, "-m", "cots.launch", "cots.stages.tokenize", *map(str, inputs)], 2)
    assert done.returncode == 0, done.stderr
    made = sorted(path.relative_to(tokenized / "tokens") for path in (tokenized / "tokens").rglob("*.safetensors"))
    assert made
    for path in made:
        assert (project / "tokens" / path).read_bytes() == (tokenized / "tokens" / path).read_bytes()
