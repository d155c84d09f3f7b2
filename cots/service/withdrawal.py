"""Withdraws samples of a project on request, by running `cots data withdraw`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from cots.errors import BadInput
from cots.service.errors import RequestRefused
from cots.service.project_command import CommandFailed, run_cots


class Withdrawal:
    """Runs `cots data withdraw` in a project's folder, one at a time.

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
        async with self._lock:
            try:
                return await run_cots(self._project, "data", "withdraw", "--reason", reason, "--", *ids)
            except CommandFailed as error:
                if error.code is None:
                    raise RequestRefused(503, f"nothing is withdrawn: {error}") from None
                raise RequestRefused(422 if error.code == BadInput.exit_code else 503, str(error)) from None
