"""Withdraws samples of a project on request, by running `cots data withdraw`."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from cots.errors import BadInput
from cots.service.errors import RequestRefused


class Withdrawal:
    """Runs `cots data withdraw` in a project's folder, one at a time.

    The command is a process of its own, because it works in the project's folder and loads libraries that the service
    must not load.

    Args:
        project: folder of the project.
    """

    def __init__(self, project: Path) -> None:
        self._project, self._lock = project, asyncio.Lock()

    async def __call__(self, ids: Sequence[str], reason: str) -> str:
        """Withdraw samples; return what the command reports.

        Raises:
            RequestRefused: the command failed, with its message: status 422 if nothing is withdrawn, for example
                because of an unknown id; 503 if the samples may still be served.
        """
        arguments = ["-m", "cots", "data", "withdraw", "--reason", reason, "--", *ids]
        async with self._lock:
            try:
                command = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *arguments,
                    cwd=self._project,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
            except OSError as error:  # the folder is gone, or the command line is too long
                raise RequestRefused(
                    503, f"nothing is withdrawn: the command does not start: {error.strerror}"
                ) from None
            report, errors = await command.communicate()
        if command.returncode == 0:
            return report.decode(errors="replace")
        message = (errors.decode(errors="replace").strip().splitlines() or ["it failed"])[-1]
        raise RequestRefused(422 if command.returncode == BadInput.exit_code else 503, message.removeprefix("error: "))
