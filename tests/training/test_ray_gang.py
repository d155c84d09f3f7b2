"""Stages over the nodes of a Ray cluster leave the files of this machine, whatever happens to processes and nodes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from tests.kill_points import contents
from tests.servers import waited_for
from tests.training.conftest import tiny_params

pytest.importorskip("ray", reason="install the extra cluster")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PRETRAIN = "cots.stages.pretrain"
NODE: dict[str, Any] = {
    "num_cpus": 1,
    "num_gpus": 1,  # which Ray believes
    "object_store_memory": 80_000_000,
    "include_dashboard": False,
    "include_log_monitor": False,
}
SECONDS = 300
DVAE_STEPS = 20
# A stage of which process 1 ends with the exit code that it is given, once process 0 is there; or both wait.
PROBE = """
import json, os, signal, sys, time
from pathlib import Path
rank = os.environ["RANK"]
print("this is process", rank, file=sys.stderr, flush=True)
Path(f"environment{rank}.json").write_text(json.dumps(dict(os.environ)))
Path(f"pid{rank}.partial").write_text(str(os.getpid()))
Path(f"pid{rank}.partial").rename(f"pid{rank}")
if rank == "1" and len(sys.argv) > 1:
    while not Path("pid0").exists():
        time.sleep(0.05)
    sys.exit(int(sys.argv[1]))
signal.pause()
"""

TIMINGS = ["pairs_per_second", "utilisation", "data_wait"]
Outputs = dict[str, str]


class TwoNodes:
    """A cluster of two nodes with room for one process each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self._add(no_monitor=True)
        self.second = self._add()
        self.variables = {"COTS_ENGINE": "ray", "RAY_ADDRESS": self.cluster.address, "COTS_PROCESSES": "2"}

    def _add(self, **options: Any) -> Any:
        for _ in range(3):  # Ray gives a node 30 s to start, on a busy machine too
            with suppress(Exception):
                return self.cluster.add_node(**NODE, **options)
        return self.cluster.add_node(**NODE, **options)

    def replace_second(self) -> None:
        """Take the second node away as if its power had failed, and add another one."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = self._add()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = TwoNodes()
        yield nodes
        nodes.cluster.shutdown()


@pytest.fixture(scope="module")
def make_project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Callable[[], Path]:
    """Makes a folder with the parameters of a run that is long enough to be interrupted twice."""
    few = {"train": 9, "val": 2, "test": 2}
    scenes = {"path": str(ROOT / "cots/data/scenes.yaml"), "images": few, "videos": few}
    params = tiny_params(
        pretrain={"steps": 12, "checkpoint_every": 2},
        dvae={"steps": DVAE_STEPS},
        evaluate={"bootstrap_resamples": 20, "num_examples": 2, "batch_size": 4},
        index={"recall_queries": 20},
        source=scenes,
    )

    def make() -> Path:
        folder = tmp_path_factory.mktemp("project")
        (folder / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
        shutil.copy(empty_store, folder / "mlflow.db")
        (folder / "withdrawn.csv").write_text("id,when,reason\n")
        (folder / "probe.py").write_text(PROBE)
        return folder

    return make


def start(
    python: str, folder: Path, variables: dict[str, str], module: str, *arguments: object
) -> subprocess.Popen[str]:
    own = {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    return subprocess.Popen(
        [python, "-m", "cots.launch", module, *map(str, arguments)],
        cwd=folder,
        env=os.environ | own | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], *, code: int = 0) -> str:
    """What a process printed to standard error, when it has ended."""
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, errors
    return errors


def outputs(folder: Path) -> Outputs:
    """All files of a run but its inputs and what differs from run to run."""
    own, passing = (
        contents(folder),
        ("mlflow", "mlartifacts", "params.yaml", "run.json", "runs/finetune", "probe", "__pycache__"),
    )
    return {name: own[name] for name in own if not name.startswith(passing)}


@pytest.fixture(scope="module")
def stages(
    tiny_data: Path, tokenized: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Path]]:
    """The arguments of each stage."""
    data = [tiny_data / "shards", tiny_data / "manifest.parquet"]
    finetuned = tmp_path_factory.mktemp("finetuned")
    for target in ("image-text", "video-text"):
        (finetuned / target).symlink_to(tiny_model)
    names = ("headline.json", "metrics.json", "evaluation", "index.html")
    reports = [Path("reports"), *(Path("reports") / name for name in names)]
    return {
        "prepare": [Path(name) for name in ("withdrawn.csv", "shards", "manifest.parquet", "rejected.parquet")],
        "tokenize": [*data, tokenized / "dvae", Path("tokens"), Path("tokenizer")],
        "pretrain": [*data, tokenized / "tokens", tokenized / "tokenizer", *map(Path, ("model", "report", "run.json"))],
        "train_dvae": [*data, Path("dvae"), Path("report")],
        "finetune": [
            Path("finetune@video-text"),
            *data,
            tokenized / "tokens",
            tiny_model,
            *map(Path, ("m", "r", "runs")),
        ],
        "evaluate": [*data, tiny_data / "rejected.parquet", tiny_model, finetuned, *reports, Path("run.json")],
        "index": [*data, tiny_model.parent, Path("index")],
    }


class Pair:
    """Two folders in which a stage runs in two processes, on this machine and over the cluster."""

    def __init__(self, python: str, make: Callable[[], Path], nodes: TwoNodes) -> None:
        self.local, self.spread = make(), make()
        self._python, self._nodes = python, nodes

    def start_local(self, name: str, arguments: list[Path]) -> subprocess.Popen[str]:
        return start(self._python, self.local, {"COTS_PROCESSES": "2"}, f"cots.stages.{name}", *arguments)

    def run_spread(self, name: str, arguments: list[Path]) -> str:
        """What the stage printed."""
        errors = finish(start(self._python, self.spread, self._nodes.variables, f"cots.stages.{name}", *arguments))
        assert "start anew" not in errors
        return errors

    def different(self) -> set[str]:
        """Files whose contents differ; there are the same ones in both folders, one at least."""
        local, spread = outputs(self.local), outputs(self.spread)
        assert local.keys() == spread.keys() != set()
        return {file for file in local if local[file] != spread[file]}


@pytest.fixture
def pair(fork_python: str, make_project: Callable[[], Path], two_nodes: TwoNodes) -> Pair:
    return Pair(fork_python, make_project, two_nodes)


@pytest.mark.parametrize(
    ("name", "timed"),
    [
        ("prepare", set()),
        ("tokenize", set()),
        ("finetune", {"r/video-text/curves.csv"}),
        ("evaluate", {"reports/metrics.json", "reports/index.html"}),
        ("index", {"index/index.json"}),
    ],
)
def test_a_stage_over_two_nodes_leaves_the_files_of_two_local_processes_but_for_timings(
    pair: Pair, stages: dict[str, list[Path]], name: str, timed: set[str]
) -> None:
    finish(pair.start_local(name, stages[name]))
    pair.run_spread(name, stages[name])
    assert pair.different() <= timed


def test_train_dvae_over_two_nodes_goes_on_from_a_checkpoint_of_local_processes(
    pair: Pair, stages: dict[str, list[Path]]
) -> None:
    checkpoint = Path("runs/checkpoints/train_dvae.pt")
    undisturbed = pair.start_local("train_dvae", stages["train_dvae"])
    waited_for((pair.local / checkpoint).is_file, SECONDS, every=0.005)
    (pair.spread / checkpoint).parent.mkdir(parents=True)
    shutil.copy(pair.local / checkpoint, pair.spread / checkpoint)
    finish(undisturbed)
    errors = pair.run_spread("train_dvae", stages["train_dvae"])
    assert f" of {DVAE_STEPS} steps in" in errors  # the others were in the checkpoint
    assert pair.different() == set()


def find_rank(folder: Path, rank: str) -> list[psutil.Process]:
    """The process of pretrain with this rank in a folder."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            ours = PRETRAIN in command and not {"cots.launch", "cots.supervise"} & set(command)
            if ours and process.cwd() == str(folder) and process.environ().get("RANK") == rank:
                processes.append(process)
    return processes


def test_pretrain_that_loses_a_process_and_then_a_node_leaves_the_files_of_a_run_that_lost_nothing(
    two_nodes: TwoNodes, stages: dict[str, list[Path]], make_project: Callable[[], Path], fork_python: str
) -> None:
    whole, folder = make_project(), make_project()
    finish(start(fork_python, whole, {"COTS_PROCESSES": "2"}, PRETRAIN, *stages["pretrain"]))

    run = start(fork_python, folder, two_nodes.variables, PRETRAIN, *stages["pretrain"])
    checkpoint = folder / "runs/checkpoints/pretrain.pt"
    waited_for(checkpoint.is_file, SECONDS, every=0.02)
    [victim] = find_rank(folder, "1")
    victim.send_signal(signal.SIGKILL)
    waited_for(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    [second_start] = waited_for(lambda: find_rank(folder, "1"), SECONDS)
    before = checkpoint.stat().st_mtime_ns
    waited_for(lambda: checkpoint.stat().st_mtime_ns > before, SECONDS, every=0.02)
    two_nodes.replace_second()
    errors = finish(run)
    assert not second_start.is_running()

    new_starts = [line for line in errors.splitlines() if "start anew" in line]
    assert new_starts[0] == f"{PRETRAIN}: process 1 was killed by SIGKILL: all start anew (1 of at most 3 times)"
    assert new_starts[1].startswith(f"{PRETRAIN}: process 1 was lost (Actor")
    assert len(new_starts) == 2
    after, undisturbed = outputs(folder), outputs(whole)
    assert {name for name in undisturbed if after[name] != undisturbed[name]} <= {"report/curves.csv"}
    curves, expected = (pd.read_csv(out / "report/curves.csv").drop(columns=TIMINGS) for out in (folder, whole))
    pd.testing.assert_frame_equal(curves, expected)


def test_a_fault_of_its_own_ends_a_stage_at_once_with_what_it_says(
    two_nodes: TwoNodes, make_project: Callable[[], Path]
) -> None:
    folder = make_project()
    run = start(sys.executable, folder, two_nodes.variables, "probe", 2)
    lines = finish(run, code=1).splitlines()
    assert set(lines[:-1]) == {"this is process 0", "this is process 1"}
    assert lines[-1] == "error: probe: one of 2 processes ended early, see above; run it again to resume"
    first, second = (yaml.safe_load((folder / f"environment{rank}.json").read_text()) for rank in (0, 1))
    for name, values in {
        "RANK": ("0", "1"),
        "LOCAL_RANK": ("0", "0"),
        "WORLD_SIZE": ("2", "2"),
        "LOCAL_WORLD_SIZE": ("1", "1"),
        "CUDA_VISIBLE_DEVICES": ("0", "0"),
        "OMP_NUM_THREADS": ("1", "1"),
        "MLFLOW_TRACKING_URI": (f"sqlite:///{folder / 'mlflow.db'}",) * 2,
    }.items():
        assert (first[name], second[name]) == values, name
    assert first["MASTER_ADDR"] == second["MASTER_ADDR"]
    assert first["MASTER_PORT"] == second["MASTER_PORT"]


def test_more_losses_than_allowed_and_too_few_nodes_are_one_line(
    two_nodes: TwoNodes, make_project: Callable[[], Path]
) -> None:
    folder = make_project()
    lost = finish(start(sys.executable, folder, two_nodes.variables | {"COTS_RESTARTS": "0"}, "probe", 137), code=1)
    assert lost.splitlines()[-1] == (
        "error: probe: process 1 was killed by SIGKILL, after 0 new starts: see above, and run it again to resume"
    )
    variables = two_nodes.variables | {"COTS_PROCESSES": "3", "COTS_WAIT": "1"}
    [line] = finish(start(sys.executable, folder, variables, "probe"), code=1).splitlines()
    assert line.startswith(
        "error: probe: 3 processes need 1 CPU and 1 GPU each; after 1 s the cluster has 2 CPU and 2 GPU"
    )
    assert line.endswith(": add nodes, or lower COTS_PROCESSES")


def test_processes_end_with_the_one_who_started_them(two_nodes: TwoNodes, make_project: Callable[[], Path]) -> None:
    folder = make_project()
    run = start(sys.executable, folder, two_nodes.variables, "probe")
    files = folder / "pid0", folder / "pid1"
    waited_for(lambda: all(file.is_file() for file in files), SECONDS)
    ranks = [psutil.Process(int(file.read_text())) for file in files]
    run.kill()
    run.communicate()
    assert psutil.wait_procs(ranks, timeout=SECONDS)[1] == []


def test_a_cluster_that_does_not_answer_is_one_line(make_project: Callable[[], Path]) -> None:
    nowhere = {"COTS_ENGINE": "ray", "RAY_ADDRESS": "127.0.0.1:1"}
    [line] = finish(start(sys.executable, make_project(), nowhere, "probe"), code=2).splitlines()
    assert line.startswith("error: no Ray cluster can be used at RAY_ADDRESS=127.0.0.1:1: ")
