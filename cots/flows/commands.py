"""Runs DVC and `cots` as supervised subprocesses, and asks DVC for the state of the project."""

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
from cots.project_files import LOCK_FILE

LOCK_BACKUP = Path(".dvc/tmp/dvc.lock.kept")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Result of a command that succeeded.

    Attributes:
        seconds: wall time.
        output: non-empty lines of stdout and stderr.
    """

    seconds: float
    output: tuple[str, ...]


def run(module: str, *arguments: str) -> CommandResult:
    """Run `python -m module arguments` and wait for it; its output goes to the flow's log.

    Raises:
        BadInput: exit code 2; the message holds the last line of output.
        RunFailed: any other exit code but 0; likewise.
    """
    start, output = monotonic(), []
    with _start_supervised(module, *arguments) as process:
        assert process.stdout
        for line in process.stdout:
            if text := line.strip():
                get_run_logger().info(line.rstrip())
                output.append(text)
        code = process.wait()
    if code:
        error = BadInput if code == BadInput.exit_code else RunFailed
        last = output[-1] if output else "no output"
        raise error(f"`{' '.join([module, *arguments])}` ended with exit code {code}: {last}")
    return CommandResult(monotonic() - start, tuple(output))


@contextmanager
def _start_supervised(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command whose whole process group ends with the flow, however the flow ends.

    The supervisor inherits the lock of `cots.exclusive_run`, so the folder stays locked until the command ends.
    """
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "cots.supervise", module, *arguments],
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
    return bool(_query_dvc("config", "core.remote", default=""))


def list_stages() -> list[str]:
    """Names of the pipeline's stages in the order of dvc.yaml."""
    return _query_dvc("stage", "list", "--name-only").split()


def list_stale_stages() -> list[str]:
    """Stages whose dependencies or outputs have changed; stages that depend on them may become stale as well.

    DVC writes dvc.lock in place. If it is killed meanwhile, the file is truncated and `dvc status` fails. Then the
    backup of `backup_lock` is restored; results made since the backup are still in DVC's cache.

    Raises:
        RunFailed: `dvc status` fails, for example because dvc.yaml is invalid.
    """
    try:
        answer = _query_dvc("status", "--json")
    except RunFailed:
        if not LOCK_FILE.is_file():
            raise
        answer = _status_with_backup_lock()
    backup_lock()
    return list(json.loads(answer))


def backup_lock() -> None:
    """Copy a valid dvc.lock to `LOCK_BACKUP`."""
    if LOCK_FILE.is_file():
        shutil.copyfile(LOCK_FILE, LOCK_BACKUP)


def _status_with_backup_lock() -> str:
    """`dvc status` with the backup lock, or without a lock if there is none; on failure dvc.lock is left as it was."""
    original = LOCK_FILE.read_bytes()
    LOCK_FILE.unlink()
    if LOCK_BACKUP.is_file():
        shutil.copyfile(LOCK_BACKUP, LOCK_FILE)
    try:
        answer = _query_dvc("status", "--json")
    except RunFailed:
        LOCK_FILE.write_bytes(original)
        raise
    get_run_logger().warning("%s could not be read: continuing from its backup", LOCK_FILE)
    return answer


def _query_dvc(*arguments: str, default: str | None = None) -> str:
    """Standard output of a DVC command; `default`, if given, is returned when the command fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode and default is None:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise RunFailed(f"`dvc {' '.join(arguments)}` ended with exit code {done.returncode}: {last}")
    return done.stdout.strip() if not done.returncode else str(default)
