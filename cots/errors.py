"""What can go wrong by a user's doing, and how it is told: one line, an exit code, no traceback.

CotsError
├── BadInput   exit code 2: a file, a table, a parameter or an argument is wrong
└── RunFailed  exit code 1: the input was usable, the run was not
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class CotsError(Exception):
    """An error whose message is written for the person at the keyboard: what, where, what to do."""

    exit_code = 1


class BadInput(CotsError):
    """Something that the user gave cannot be used."""

    exit_code = 2


class RunFailed(CotsError):
    """The work itself failed: too many rejects, an expectation not met, a server that is down."""


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn a `CotsError` into its message on standard error and its exit code."""
    try:
        yield
    except CotsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
