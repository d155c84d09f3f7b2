"""Files that a verb writes where the user says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cots.errors import BadInput


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what stands in the way of a file into one line.

    Raises:
        BadInput: the block below could not write.
    """
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
