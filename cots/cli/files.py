"""Writing files to paths that the user gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cots.errors import BadInput


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report a failed write as an error of one line.

    Raises:
        BadInput: the body could not write.
    """
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
