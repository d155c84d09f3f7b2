"""Withdraws samples of a project over HTTP, by the command `cots data withdraw` itself."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from cots.errors import BadInput
from cots.service.errors import RequestRefused


class Withdrawal:
    """Runs `cots data withdraw` in a project's folder, one at a time.

    A process of its own, because the command works in its folder, and the service must not load what it loads.

    Args:
        project: the folder.
    """

    def __init__(self, project: Path) -> None:
        self._project, self._lock = project, asyncio.Lock()

    async def __call__(self, ids: Sequence[str], reason: str) -> str:
        """Withdraw samples; return what the command reports.

        Raises:
            RequestRefused: with the command's message. An unknown id withdraws nothing (422); after a failure samples
                may still be served (503).
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
            except OSError as error:  # the folder is gone, or the ids together are longer than a command may be
                raise RequestRefused(
                    503, f"nothing is withdrawn: the command does not start: {error.strerror}"
                ) from None
            report, errors = await command.communicate()
        if command.returncode == 0:
            return report.decode(errors="replace")
        [*_, reason] = errors.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise RequestRefused(422 if command.returncode == BadInput.exit_code else 503, reason.removeprefix("error: "))
