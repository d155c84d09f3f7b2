"""A stage in as many processes as `COTS_PROCESSES` says: `python -m cots.launch MODULE ARGUMENT...`.

How many is the machine's matter, not the experiment's: results are the same, so no parameter says it and DVC does not
ask. With one process, which is the default, the module takes this one's place; with more, `torchrun` starts them and
ends all when one ends.
"""

import os
import subprocess
import sys

from cots.errors import BadInput, RunFailed, exit_on_error

NUM_PROCESSES_VARIABLE = "COTS_PROCESSES"
# For activations; a step takes 0.93 of the time (docs/log.md).
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def launch(module: str, *arguments: str) -> None:
    """Run a module's main block.

    Raises:
        BadInput: the variable holds no number from 1.
        RunFailed: one of several processes failed; it has told why before.
    """
    count = os.environ.get(NUM_PROCESSES_VARIABLE, "1")
    if not count.isdecimal() or int(count) < 1:
        raise BadInput(f"{NUM_PROCESSES_VARIABLE}={count}: give a whole number from 1")
    environment = HUGE_PAGES | os.environ
    if int(count) == 1:
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)  # noqa: S606
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    if subprocess.run([*torchrun, "-m", module, *arguments], check=False, env=environment).returncode:  # noqa: S603
        raise RunFailed(f"{module}: one of {count} processes ended early, see above; repeat to go on where it stopped")


if __name__ == "__main__":
    with exit_on_error():
        launch(*sys.argv[1:])
