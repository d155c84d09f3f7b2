"""The rows of a manifest that is being made, on the disk, so that memory does not grow with the data."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from cots.batching import batched
from cots.data.ingest.block_files import Place, Row
from cots.data.ingest.ingestor import Rejected
from cots.data.manifest import OPTIONAL, PIECE
from cots.data.samples import RejectReason

SET_UP = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;  -- KiB
CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE samples (number INTEGER PRIMARY KEY, row TEXT, place TEXT);
CREATE TABLE rejected (number INTEGER PRIMARY KEY, row TEXT);
"""


class Ledger:
    """Usable samples by their keys, rejected ones in their order, and the ids of those that are usable.

    Attributes:
        reasons: number of rejected samples by reason.
        first_rejected: the first that was not withdrawn.
        optional_columns: those of `OPTIONAL` that some sample has.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.reasons = Counter[RejectReason]()
        self.first_rejected: Rejected | None = None
        self.optional_columns = set[str]()

    def add(self, row: Row, place: Place) -> None:
        """Add a row of the manifest, and where the sample's frames are."""
        self._connection.execute("INSERT INTO samples VALUES (?, ?, ?)", (int(row["key"]), _dump(row), _dump(place)))
        self.optional_columns.update(name for name in OPTIONAL if row.get(name))

    def add_rejected(self, sample: Rejected) -> None:
        """Add a rejected sample."""
        self._connection.execute("INSERT INTO rejected (row) VALUES (?)", (_dump(asdict(sample)),))
        self.reasons[sample.reason] += 1
        if sample.reason != "withdrawn":
            self.first_rejected = self.first_rejected or sample

    def add_id(self, name: str) -> bool:
        """Add the id of a usable sample; False if it is there already."""
        return self._connection.execute("INSERT OR IGNORE INTO ids VALUES (?)", (name,)).rowcount > 0

    def complete(self) -> None:
        """Let `read_ledger` see all that was added."""
        self._connection.commit()

    def samples(self) -> Iterator[list[Row]]:
        """The rows of the manifest in the order of their keys, `PIECE` at a time."""
        return self._pieces("SELECT row FROM samples ORDER BY number")

    def rejected(self) -> Iterator[list[Row]]:
        """The rows of the table of rejected samples, `PIECE` at a time."""
        return self._pieces("SELECT row FROM rejected ORDER BY number")

    def _pieces(self, query: str) -> Iterator[list[Row]]:
        yield from batched((json.loads(row) for (row,) in self._connection.execute(query)), PIECE)


@contextmanager
def open_ledger(path: Path) -> Iterator[Ledger]:
    """Give an empty ledger in a file, in a folder that exists."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SET_UP)
        yield Ledger(connection)


@contextmanager
def read_ledger(path: Path) -> Iterator[Callable[[str], tuple[Row, Place]]]:
    """Give a function that finds the row of a key and the place of its frames, in a ledger that is complete."""
    # of a file that nobody changes, SQLite need not lock it, which not every shared folder can
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as connection:

        def find(key: str) -> tuple[Row, Place]:
            found = connection.execute("SELECT row, place FROM samples WHERE number = ?", (int(key),)).fetchone()
            return json.loads(found[0]), Place(*json.loads(found[1]))

        yield find


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
