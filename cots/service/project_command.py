"""Runs `cots` in a project's folder, for requests that change the project's data.

A process of its own, because the command works in its folder, and the service must not load what it loads.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO


class CommandFailed(Exception):
    """The command did not start, or ended with an exit code.

    Attributes:
        code: exit code; None if it did not start.
    """

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(message)
        self.code = code


async def run_cots(project: Path, *arguments: str) -> str:
    """Run a command to its end. Where the caller is cancelled, the command and what it has started are ended, too.

    Args:
        project: the folder.
        arguments: of `cots`.

    Returns:
        Its standard output.

    Raises:
        CommandFailed: with the command's own message.
    """
    try:
        with TemporaryFile() as output, TemporaryFile() as errors:  # unlike pipes, they need nobody who reads them
            code = await _run(project, arguments, output, errors)
            if code:
                [*_, reason] = _read(errors).strip().splitlines() or [f"it ended with exit code {code}"]
                raise CommandFailed(code, reason.removeprefix("error: "))
            return _read(output)
    except OSError as error:  # no folder, no free file, or the arguments together are longer than a command may be
        raise CommandFailed(None, f"the command does not start: {error.strerror}") from None


async def _run(project: Path, arguments: Sequence[str], output: IO[bytes], errors: IO[bytes]) -> int:
    command = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cots",
        *arguments,
        cwd=project,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    try:
        return await command.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(command.pid, signal.SIGTERM)
        await command.wait()
        raise


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
