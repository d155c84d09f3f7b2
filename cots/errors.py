"""Errors for the user: a message of one line and an exit code, without a traceback.

CotsError
├── BadInput   exit code 2: a file, a table, a parameter or an argument is wrong
└── RunFailed  exit code 1: the input was usable, but the run failed
    └── UnreadableFiles
"""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cots.terminal import escape_controls_in_lines


class CotsError(Exception):
    """An error whose message is written for the person at the keyboard: what, where, what to do."""

    exit_code = 1


class BadInput(CotsError):
    """A file, parameter or argument from the user cannot be used."""

    exit_code = 2


class RunFailed(CotsError):
    """The work itself failed: too many rejections, an expectation not met, a server that is down."""


class UnreadableFiles(RunFailed):
    """The files of one registered version are missing or damaged; other versions are not affected."""


@contextmanager
def exit_on_error() -> Iterator[None]:
    """The whole work of a process: on a `CotsError`, print its message to standard error and exit with its code."""
    # With torch loaded, the last garbage collection of a process takes two CPU seconds and frees what ends anyway.
    atexit.register(gc.freeze)
    try:
        yield
    except CotsError as error:
        print(escape_controls_in_lines(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
