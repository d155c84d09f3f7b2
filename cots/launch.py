"""Runs a stage in `COTS_PROCESSES` processes: `python -m cots.launch MODULE ARGUMENT...`.

The number of processes depends on the machine and changes no result, so it is an environment variable, not a parameter
that DVC tracks. With one process, the default, the module replaces this process; with more, `torchrun` starts them and
ends all of them when one fails. Where RANK is set, another launcher has started this process as one of several, and the
module replaces it.
"""

import os
import subprocess
import sys

from cots.errors import BadInput, RunFailed, exit_on_error

NUM_PROCESSES_VARIABLE = "COTS_PROCESSES"
# Huge pages for activations reduce the time of a step to 0.93 of what it was (docs/log.md).
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def launch(module: str, *arguments: str) -> None:
    """Run a module's main block.

    Raises:
        BadInput: the variable is not a whole number from 1.
        RunFailed: one of several processes failed; it has printed why.
    """
    count = os.environ.get(NUM_PROCESSES_VARIABLE, "1")
    if not count.isdecimal() or int(count) < 1:
        raise BadInput(f"{NUM_PROCESSES_VARIABLE}={count}: give a whole number from 1")
    environment = HUGE_PAGES | os.environ
    if "RANK" in os.environ or int(count) == 1:
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)  # noqa: S606
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    if subprocess.run([*torchrun, "-m", module, *arguments], check=False, env=environment).returncode:  # noqa: S603
        raise RunFailed(f"{module}: one of {count} processes ended early, see above; run it again to resume")


if __name__ == "__main__":
    with exit_on_error():
        launch(*sys.argv[1:])
