"""Files that a verb writes where the user says."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON for people and programs aside, and rename it.

    Raises:
        BadInput: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        partial.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
        partial.replace(path)
