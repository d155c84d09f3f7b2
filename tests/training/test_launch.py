"""Stages in several processes, from the shell: what they write, and what is left when one of them dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from cots.build import new_model
from tests.servers import waited_for
from tests.training.conftest import tiny_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STAGE = "cots.stages.pretrain"
SECONDS = 300


@pytest.fixture
def project(tmp_path: Path, store: str, tiny_data: Path, tokenized: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to train in, long enough to be interrupted."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    return tmp_path


def written(folder: Path, *, save: str = "online", **changes: object) -> None:
    """Parameters of a run long enough to be interrupted, with these changes to `pretrain`."""
    params = tiny_params(pretrain={"steps": 120, "checkpoint_every": 5} | changes, objective={"save": save})
    (folder / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))


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


@pytest.mark.parametrize(("sharded", "later"), [(False, 1), (True, 1), (True, 2)])
def test_a_killed_process_ends_the_run_which_goes_on_with_another_number_of_them(
    project: Path, tiny_data: Path, tokenized: Path, sharded: bool, later: int
) -> None:
    written(project, shard_weights=sharded)
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

    again = ended(run, later)
    assert again.returncode == 0, again.stderr
    assert not checkpoint.exists()
    mine, theirs = (load_file(project / out / "model/model.safetensors") for out in ("killed", "whole"))
    assert mine.keys() == theirs.keys()
    assert all(mine[key].shape == value.shape for key, value in theirs.items())
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


def test_parts_that_a_process_has_too_few_pairs_for_are_told_in_one_line_where_weights_are_sharded(
    project: Path, tiny_data: Path, tokenized: Path
) -> None:
    written(project, shard_weights=True, parts=3)
    done = ended(command(tiny_data, tokenized, "out"), 2)
    assert done.returncode == 1
    assert "error: a batch of 4 in 3 parts for 2 processes: start fewer, or raise the batch" in done.stderr.splitlines()


@pytest.mark.parametrize("save", ["online", "ema"])
def test_a_run_with_sharded_weights_leaves_the_streams_of_a_run_without(
    project: Path, tiny_data: Path, tokenized: Path, save: str
) -> None:
    left = {}
    for out, sharded in (("common", False), ("sharded", True)):
        written(project, save=save, fsdp=sharded, steps=3)
        done = ended(command(tiny_data, tokenized, out), 2)
        assert done.returncode == 0, done.stderr
        left[out] = load_file(project / out / "model/model.safetensors")
    torch.manual_seed(0)
    begun = new_model(tiny_params().model, tokenized / "tokenizer")
    start = {
        f"{name}.{key}": value for name in ("image", "text") for key, value in getattr(begun, name).state_dict().items()
    }
    assert start.keys() == left["common"].keys() == left["sharded"].keys()
    moved, apart = (
        sum(float((left[a][key] - other[key]).double().square().sum()) for key in start)
        for a, other in (("common", start), ("sharded", left["common"]))
    )
    assert apart < 0.1 * moved  # AdamW makes much of the rounding of small gradients


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("set_before", [None, "glibc.malloc.check=1"])
def test_a_stage_asks_for_huge_pages_unless_the_allocator_is_set_already(
    tmp_path: Path, count: int, set_before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told.py").write_text(
        "import os, sys; open(sys.argv[1] + os.environ.get('RANK', '0'), 'w').write(os.environ['GLIBC_TUNABLES'])"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if set_before:
        monkeypatch.setenv("GLIBC_TUNABLES", set_before)
    done = ended([sys.executable, "-m", "cots.launch", "told", str(tmp_path / "out")], count)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out0").read_text() == (set_before or "glibc.malloc.hugetlb=1")
    assert (tmp_path / f"out{count - 1}").is_file()
