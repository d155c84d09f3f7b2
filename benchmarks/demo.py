"""Times the demo stage by stage, then `dvc repro` with nothing to do, in a clone of this folder's last commit.

Set-up and registration, which `make demo` adds, are not timed. Goals: five minutes on two cores, and three seconds.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

STAGE = "Running stage '"
IDLE_RUNS = 5


def main() -> None:
    """Print the seconds of each stage, of all, and of a run in which no stage is stale."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), name], check=True)
        starts = list(stages(Path(name)))
        for (stage, start), (_, end) in pairwise(starts):
            print(f"{stage:<24} {end - start:7.1f} s", flush=True)
        print(f"{'total':<24} {starts[-1][1] - starts[0][1]:7.1f} s")
        idle = [_idle(name) for _ in range(IDLE_RUNS)]
        print(f"{'nothing to do':<24} {statistics.median(idle):7.1f} s (of {min(idle):.1f} to {max(idle):.1f})")


def stages(folder: Path) -> Iterator[tuple[str, float]]:
    """Each stage of `dvc repro` with its start time, between the start of dvc itself and the end."""
    command = [sys.executable, "-m", "dvc", "repro"]
    yield "start of dvc", time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith(STAGE):
                yield line.removeprefix(STAGE).split("'")[0], time.perf_counter()
    if run.returncode:
        sys.exit(f"error: dvc repro ended with {run.returncode}")
    yield "end", time.perf_counter()


def _idle(folder: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=folder, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
