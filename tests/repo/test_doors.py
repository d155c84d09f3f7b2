"""What opens at once: the command line, the registry and the flows load no library that they do not use.

Each door is opened in a process of its own, which then says what it loaded and what that cost.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cots.registry.registry import Registry
from tests.deployed import register

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "timm", "transformers", "faiss", "great_expectations", "webdataset", "matplotlib"}
HEAVY |= {"s3fs", "botocore"}
LIGHT = HEAVY | {"mlflow", "pandas", "numpy", "pyarrow", "prefect", "dvc", "rich", "PIL"}  # not even these
# VmHWM is this program's own peak; ru_maxrss of getrusage begins with that of the process that started it.
ACCOUNT = """
import json, sys, time
seconds = time.process_time()
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
report = {"modules": [*sys.modules], "seconds": seconds, "peak": int(peak)}
print(json.dumps(report), file=sys.stderr)
"""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Opened:
    """What a process loaded and used: CPU seconds, and MiB of memory at its peak."""

    libraries: set[str]
    seconds: float
    megabytes: float
    said: str


def opened(code: str) -> Opened:
    program = f"import atexit\natexit.register(lambda: exec({ACCOUNT!r}))\n{code}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stderr.splitlines()[-1])
    libraries = {name.partition(".")[0] for name in report["modules"]}
    return Opened(libraries, report["seconds"], report["peak"] / 1024, done.stdout)


def cots(*lines: str) -> Opened:
    """Commands one after another in one process, each as it would be typed."""
    calls = "".join(
        f"sys.argv = {['cots', *shlex.split(line)]!r}\nwith suppress(SystemExit): main()\n" for line in lines
    )
    return opened(f"import sys\nfrom contextlib import suppress\nfrom cots.cli import main\n{calls}")


@pytest.fixture(scope="module")
def mlflow_alone() -> Opened:
    """The yardstick, for machines differ: what `import mlflow` costs here."""
    return opened("import mlflow")


@pytest.fixture
def two_versions(store: str, tiny_package: Path, other_package: Path) -> None:
    """Version 2 is the champion, version 1 the one before."""
    for package in (tiny_package, other_package):
        register(Registry(), package)


def test_the_package_itself_loads_nothing(mlflow_alone: Opened) -> None:
    door = opened("import cots")
    assert door.libraries & LIGHT == set()
    assert door.seconds < 0.1 * mlflow_alone.seconds


@pytest.mark.parametrize("line", ["--help", "--version", "search --help"])
def test_help_and_version_load_the_command_line_alone(line: str, mlflow_alone: Opened) -> None:
    door = cots(line)
    assert door.said
    assert door.libraries & LIGHT == set()
    assert door.seconds < 0.3 * mlflow_alone.seconds


@pytest.mark.usefixtures("two_versions")
def test_a_local_registry_is_listed_without_mlflow(mlflow_alone: Opened) -> None:
    door = cots("registry list", "registry history")
    assert "champion" in door.said
    assert door.libraries & (LIGHT - {"rich"}) == set()
    assert door.seconds < 0.6 * mlflow_alone.seconds
    assert door.megabytes < 100


@pytest.mark.usefixtures("two_versions")
def test_a_search_by_text_loads_neither_mlflow_nor_timm() -> None:
    door = cots("search 'a red square'")
    assert "square" in door.said
    assert door.libraries & {"mlflow", "timm"} == set()


@pytest.mark.usefixtures("two_versions")
def test_moves_of_the_champion_and_looks_at_the_registry_load_no_model() -> None:
    door = cots(
        "registry promote --version 1 --reason first",
        "registry rollback --reason back",
        "registry lineage",
        "registry diff 1 2",
        "data lineage 1",
    )
    for said in ("version 1 is the champion", "version 2 is the champion", "encoders.digest", "rsum", "trained on"):
        assert said in door.said
    assert door.libraries & HEAVY == set()


def test_flows_load_no_model() -> None:
    door = opened("import cots.flows.drift, cots.flows.promotion, cots.flows.refresh_index, cots.flows.retrain")
    assert door.libraries & HEAVY == set()


def test_a_process_ends_without_collecting_garbage() -> None:
    """Functions registered before those of the process run after them."""
    code = "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count()))\n"
    door = opened(f"{code}from cots.errors import exit_on_error\nwith exit_on_error():\n    pass")
    assert int(door.said) > 1000


def test_a_process_with_types_of_nanobind_collects_garbage_so_that_nothing_is_called_a_leak() -> None:
    code = """import atexit, gc, sys, types
atexit.register(lambda: print(gc.get_freeze_count()))
from cots.errors import exit_on_error
metaclass = type("nb_type_0", (type,), {"__module__": "nanobind"})
ir = types.SimpleNamespace(builder=metaclass("builder", (), {}))
sys.modules["triton._C.libtriton"] = types.SimpleNamespace(ir=ir)
with exit_on_error():
    pass"""
    assert int(opened(code).said) == 0
