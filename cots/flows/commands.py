"""The tools that a flow calls, DVC and `cots`, each on a leash; and what DVC knows of the project."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from prefect import get_run_logger

from cots.errors import BadInput, RunFailed

LOCK, KEPT = Path("dvc.lock"), Path(".dvc/tmp/dvc.lock.kept")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command that ended well.

    Attributes:
        seconds: that it took.
        said: its lines.
    """

    seconds: float
    output: tuple[str, ...]


def run(module: str, *arguments: str) -> CommandResult:
    """Run `python -m module arguments` to its end, its lines in the flow's log.

    Raises:
        BadInput: it ended with exit code 2; tells its last line.
        RunFailed: it ended with another exit code than 0; likewise.
    """
    began, said = monotonic(), []
    with _on_leash(module, *arguments) as process:
        assert process.stdout
        for line in process.stdout:
            if text := line.strip():
                get_run_logger().info(line.rstrip())
                said.append(text)
        code = process.wait()
    if code:
        kind = BadInput if code == BadInput.exit_code else RunFailed
        last = said[-1] if said else "it said nothing"
        raise kind(f"`{' '.join([module, *arguments])}` ended with exit code {code}: {last}")
    return CommandResult(monotonic() - began, tuple(said))


@contextmanager
def _on_leash(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The running command; when the flow ends, for whatever reason, nothing that it started goes on.

    The leash inherits the lock of `cots.flows.exclusive_run`, so that the folder is free only when the command is gone.
    """
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "cots.flows.supervise", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        close_fds=False,
    ) as process:
        assert process.stdin
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait()


def has_remote() -> bool:
    """Whether DVC has a default remote to pull from and push to."""
    return bool(_asked("config", "core.remote", failing=""))


def stages() -> list[str]:
    """The names of the pipeline's stages, in the order of dvc.yaml."""
    return _asked("stage", "list", "--name-only").split()


def stale_stages() -> list[str]:
    """The stages that are not up to date by what lies in the folder now; what follows from them may be as well.

    DVC writes dvc.lock in place: killed while it does, it leaves half a file or none of it, and can tell nothing any
    more. Then the lock before it is put back (`keep_lock`); what was made since is in DVC's cache.

    Raises:
        RunFailed: DVC cannot tell, for one because dvc.yaml is wrong.
    """
    try:
        answer = _asked("status", "--json")
    except RunFailed:
        if not LOCK.is_file():
            raise
        answer = _with_the_lock_before()
    backup_lock()
    return list(json.loads(answer))


def backup_lock() -> None:
    """Keep a copy of a dvc.lock that is whole."""
    if LOCK.is_file():
        shutil.copyfile(LOCK, KEPT)


def _with_the_lock_before() -> str:
    """What DVC says of the kept lock, or without one where none is kept; if that is no help, all is left as it was."""
    present = LOCK.read_bytes()
    LOCK.unlink()
    if KEPT.is_file():
        shutil.copyfile(KEPT, LOCK)
    try:
        answer = _asked("status", "--json")
    except RunFailed:
        LOCK.write_bytes(present)
        raise
    get_run_logger().warning("%s could not be read: going on from the one before", LOCK)
    return answer


def _asked(*question: str, failing: str | None = None) -> str:
    """What DVC answers; `failing` is the answer where it ends with an error."""
    command = [sys.executable, "-m", "dvc", *question]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode and failing is None:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise RunFailed(f"`dvc {' '.join(question)}` ended with exit code {done.returncode}: {last}")
    return done.stdout.strip() if not done.returncode else str(failing)
