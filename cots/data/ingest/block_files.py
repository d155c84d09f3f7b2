"""Blocks: what became of the samples of one part of a source, set aside in two files until all parts are done.

`NUMBER.frames` holds the encoded frames of usable samples one after another. `NUMBER.jsonl` has a row for each sample:
what the manifest says of it and where its frames are, or why it is rejected; and a last row with the state of the part.
The rows get their name when everything is written.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

LAST_ROW_BYTES = 300  # at most
Row = dict[str, Any]


class Place(NamedTuple):
    """Where the frames of a sample are: in the block of a number, from a byte on, of so many bytes each."""

    block: int
    start: int
    sizes: Sequence[int]


def block_files(folder: Path, number: int) -> tuple[Path, Path]:
    """The files of rows and of frames."""
    return folder / f"{number:06d}.jsonl", folder / f"{number:06d}.frames"


def read_block(folder: Path, number: int) -> Iterator[Row]:
    """The rows of a block without the last: of rejected samples those of `REJECTED_SCHEMA`, of usable ones those of the
    manifest without key and shard, and `source_split`, `start` and `sizes` of the frames.

    A row with `is_changed` is of a sample as requests have changed it; the next one is of the sample as it was.
    """
    with block_files(folder, number)[0].open("rb") as rows:
        for line in rows:
            row = json.loads(line)
            if "state" in row:
                return
            yield row


class FrameReader:
    """Reads frames of blocks in a folder; fast for those of one block after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._block: int | None = None

    def __enter__(self) -> Self:
        """Open no file yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file that is open."""
        self._files.close()

    def read(self, place: Place) -> tuple[bytes, ...]:
        """The frames of a sample."""
        if place.block != self._block:
            self._files.close()
            self._file = self._files.enter_context(block_files(self._folder, place.block)[1].open("rb"))
            self._block = place.block
        self._file.seek(place.start)
        return tuple(self._file.read(size) for size in place.sizes)


def read_last_row(rows: Path) -> Row:
    """The last row of a block; {} if it was not written as a whole."""
    with rows.open("rb") as file:
        file.seek(max(0, rows.stat().st_size - LAST_ROW_BYTES))
        lines = file.read().splitlines()
    try:
        row = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}
    return row if isinstance(row, dict) and "state" in row else {}


def dump_row(row: Row) -> bytes:
    """A line of the file of rows."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"
