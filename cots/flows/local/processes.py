"""Processes that outlive the command which started them, and are found again by it."""

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
from cots.flows.local.settings import free_or_told

UP_SECONDS = 240  # for a busy machine: MLflow's first start makes its tables
POLL_SECONDS = 0.2
DOWN_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Service:
    """One background process.

    Attributes:
        name: of its log and of the file that remembers its process.
        command: what is run.
        environment: of the process.
        port: that it listens at, if it does.
        healthy: whether it does its work.
        stop_signal: that it understands as a wish to end.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int | None
    healthy: Callable[[], bool]
    stop_signal: signal.Signals


class Processes:
    """The background processes of one state folder.

    A process is known by its number and the time it began, so that a number that was given again is never mistaken.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def log(self, name: str) -> Path:
        """Where a process writes to."""
        return self._folder / "logs" / f"{name}.log"

    def running(self, name: str) -> psutil.Process | None:
        """The process of that name that was started from here, if it lives."""
        known = self._known(name)
        try:
            process = psutil.Process(known["pid"])
            lives = not _given_again(known) and process.status() != psutil.STATUS_ZOMBIE
        except (KeyError, psutil.NoSuchProcess):
            return None
        return process if lives else None

    def start(self, service: Service, *, cwd: Path) -> bool:
        """Start it in a session of its own unless it runs; whether that was necessary.

        Raises:
            BadInput: another program listens at its port.
        """
        if self.running(service.name):
            return False
        self._end_orphans(service.name)
        if service.port:
            free_or_told(service.port, service.name)
        self.log(service.name).parent.mkdir(exist_ok=True)
        with self.log(service.name).open("ab") as log:
            started = subprocess.Popen(  # noqa: S603
                service.command,
                cwd=cwd,
                env=dict(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        record = {"pid": started.pid, "began": psutil.Process(started.pid).create_time()}
        self._record(service.name).write_text(json.dumps(record), encoding="utf8")
        return True

    def wait(self, service: Service) -> None:
        """Until it does its work.

        Raises:
            RunFailed: it ended, or did not begin to within `UP_SECONDS`; names its log.
        """
        deadline = monotonic() + UP_SECONDS
        while not service.healthy():
            if not self.running(service.name) or monotonic() > deadline:
                raise RunFailed(f"{service.name} did not come up: its log is {self.log(service.name)}")
            sleep(POLL_SECONDS)

    def stop(self, service: Service) -> bool:
        """Ask it to end, and see to it that nothing of its group is left; whether it ran."""
        process = self.running(service.name)
        if process:
            process.send_signal(service.stop_signal)
            with suppress(psutil.TimeoutExpired):
                process.wait(DOWN_SECONDS)
        self._end_orphans(service.name)
        self._record(service.name).unlink(missing_ok=True)
        return process is not None

    def _end_orphans(self, name: str) -> None:
        """Kill what a process that is gone, or will not go, has left of its group, and see it gone.

        A number is not given again while a group bears it, so where it has a new owner the old group is gone.
        """
        known = self._known(name)
        if not known or _given_again(known):
            return
        group = [process for process in psutil.process_iter() if _group(process) == known["pid"]]
        for process in group:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(group, DOWN_SECONDS)

    def _known(self, name: str) -> dict[str, Any]:
        try:
            known: dict[str, Any] = json.loads(self._record(name).read_text(encoding="utf8"))
        except FileNotFoundError:
            return {}
        return known

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _given_again(known: Mapping[str, Any]) -> bool:
    try:
        return bool(psutil.Process(known["pid"]).create_time() != known["began"])
    except psutil.NoSuchProcess:
        return False


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
