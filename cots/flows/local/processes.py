"""Background processes that outlive the command that started them and can be found again later."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil

from cots.errors import RunFailed
from cots.flows.local.settings import require_free_port

UP_SECONDS = 240  # generous: MLflow creates its tables at the first start
POLL_SECONDS = 0.2
DOWN_SECONDS = 30


@dataclass(frozen=True, slots=True)
class ManagedProcess:
    """One background process.

    Attributes:
        name: names the log and the file that records the process.
        command: program and arguments.
        environment: of the process.
        port: that it listens at, or None.
        is_healthy: checks whether the service works.
        stop_signal: makes it shut down cleanly.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int | None
    is_healthy: Callable[[], bool]
    stop_signal: signal.Signals


class Processes:
    """The background processes of one state folder.

    A process is identified by its pid and creation time, so a reused pid is never mistaken for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def log(self, name: str) -> Path:
        """Path of a process's log."""
        return self._folder / "logs" / f"{name}.log"

    def find_running(self, name: str) -> psutil.Process | None:
        """The running process of a service, or None."""
        record = self._read_record(name)
        try:
            process = psutil.Process(record["pid"])
            alive = not _is_pid_reused(record) and process.status() != psutil.STATUS_ZOMBIE
        except (KeyError, psutil.NoSuchProcess):
            return None
        return process if alive else None

    def start(self, service: ManagedProcess, *, cwd: Path) -> bool:
        """Start a service in its own session unless it is running; return whether it was started.

        Raises:
            BadInput: another program listens at its port.
        """
        if self.find_running(service.name):
            return False
        self._kill_orphans(service.name)
        if service.port:
            require_free_port(service.port, service.name)
        self.log(service.name).parent.mkdir(exist_ok=True)
        with self.log(service.name).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                service.command,
                cwd=cwd,
                env=dict(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        record = {"pid": process.pid, "began": psutil.Process(process.pid).create_time()}
        self._record_path(service.name).write_text(json.dumps(record), encoding="utf8")
        return True

    def wait(self, service: ManagedProcess) -> None:
        """Wait until a service is healthy.

        Raises:
            RunFailed: it ended, or was not healthy within `UP_SECONDS`; the message names its log.
        """
        deadline = monotonic() + UP_SECONDS
        while not service.is_healthy():
            if not self.find_running(service.name) or monotonic() > deadline:
                raise RunFailed(f"{service.name} did not start: see its log {self.log(service.name)}")
            sleep(POLL_SECONDS)

    def stop(self, service: ManagedProcess) -> bool:
        """Stop a service and kill what is left of its process group; return whether it was running."""
        process = self.find_running(service.name)
        if process:
            process.send_signal(service.stop_signal)
            with suppress(psutil.TimeoutExpired):
                process.wait(DOWN_SECONDS)
        self._kill_orphans(service.name)
        self._record_path(service.name).unlink(missing_ok=True)
        return process is not None

    def _kill_orphans(self, name: str) -> None:
        """Kill the rest of a service's process group and wait until it is gone.

        The kernel does not reuse a pid while a process group has it, so a reused pid means that the group is gone.
        """
        record = self._read_record(name)
        if not record or _is_pid_reused(record):
            return
        group = [process for process in psutil.process_iter() if _group(process) == record["pid"]]
        for process in group:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(group, DOWN_SECONDS)

    def _read_record(self, name: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._record_path(name).read_text(encoding="utf8"))
        except FileNotFoundError:
            return {}
        return record

    def _record_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _is_pid_reused(record: Mapping[str, Any]) -> bool:
    try:
        return bool(psutil.Process(record["pid"]).create_time() != record["began"])
    except psutil.NoSuchProcess:
        return False


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
