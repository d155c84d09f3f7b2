"""Files that only the account of this process can read: secrets, and what people search for."""

import os
from pathlib import Path
from typing import Literal, TextIO


def open_private(path: Path, mode: Literal["a", "x"]) -> TextIO:
    """Open a text file, to append or new, that other accounts cannot read; one that they could is closed to them.

    Raises:
        OSError: the file cannot be opened.
    """
    file = open(path, mode, encoding="utf8", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    os.fchmod(file.fileno(), 0o600)
    return file
