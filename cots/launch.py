"""Runs a stage in `COTS_PROCESSES` processes: `python -m cots.launch MODULE ARGUMENT...`.

The number of processes and where they run depend on the machine and change no result, so they are environment
variables, not parameters that DVC tracks. With one process, the default, the module replaces this process; with more,
`torchrun` starts them and ends all of them when one fails. `COTS_ENGINE=ray` runs them in a Ray cluster instead
(docs/cluster.md). Where RANK is set, another launcher has started this process as one of several, and the module
replaces it.
"""

import os
import subprocess
import sys

from cots.errors import BadInput, RunFailed, exit_on_error

ENGINE_VARIABLE = "COTS_ENGINE"
NUM_PROCESSES_VARIABLE = "COTS_PROCESSES"
NUM_RESTARTS_VARIABLE = "COTS_RESTARTS"  # how often Ray's processes are started anew after one of them was lost
NUM_THREADS_VARIABLE = "OMP_NUM_THREADS"
WAIT_VARIABLE = "COTS_WAIT"  # seconds to wait for free nodes of the cluster
# Huge pages for activations reduce the time of a step to 0.93 of what it was (docs/log.md).
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def launch(module: str, *arguments: str) -> None:
    """Run a module's main block.

    Raises:
        BadInput: a variable is wrong.
        RunFailed: one of several processes failed, and has printed why; or the cluster lacks nodes.
    """
    environment = HUGE_PAGES | os.environ
    count = _whole_number(NUM_PROCESSES_VARIABLE, default=1, at_least=1)
    in_ray = uses_ray()
    if "RANK" in os.environ or (count == 1 and not in_ray):
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)  # noqa: S606
    if in_ray:
        failed = _run_in_ray(module, *arguments, count=count, environment=environment)
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [*torchrun, "-m", module, *arguments]
        failed = subprocess.run(command, check=False, env=environment).returncode  # noqa: S603
    if failed:
        raise RunFailed(f"{module}: one of {count} processes ended early, see above; run it again to resume")


def _run_in_ray(module: str, *arguments: str, count: int, environment: dict[str, str]) -> int:
    from cots.ray_gang import run_gang  # the rest of the program runs without Ray

    return run_gang(
        module,
        *arguments,
        count=count,
        threads=_whole_number(NUM_THREADS_VARIABLE, default=1, at_least=1),
        environment=environment,
        restarts=_whole_number(NUM_RESTARTS_VARIABLE, default=3),
        wait_seconds=_whole_number(WAIT_VARIABLE, default=600),
    )


def uses_ray() -> bool:
    """Whether stages run in a Ray cluster.

    Raises:
        BadInput: the variable names another engine.
    """
    engine = os.environ.get(ENGINE_VARIABLE, "")
    if engine not in ("", "ray"):
        raise BadInput(f"{ENGINE_VARIABLE}={engine}: set it to ray, or do not set it")
    return engine == "ray"


def _whole_number(variable: str, *, default: int, at_least: int = 0) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or int(text) < at_least:
        raise BadInput(f"{variable}={text}: give a whole number from {at_least}")
    return int(text)


if __name__ == "__main__":
    with exit_on_error():
        launch(*sys.argv[1:])
