"""Goes through the rows of all blocks in order: which samples are used, under which keys, and in which shards."""

from collections.abc import Collection, Iterator
from pathlib import Path

from cots.data.ingest.block_files import Place, Row, read_block
from cots.data.ingest.ingestor import Rejected, reject_duplicate
from cots.data.ingest.ledger import Ledger
from cots.data.ingest.shard_writer import ShardLayout


class Arrangement:
    """Fills a ledger and a layout.

    Args:
        ledger: for the rows.
        layout: gives keys and shards.
        changed: ids that requests have changed or added.

    Attributes:
        waiting: those that no sample had so far, in their order.
    """

    def __init__(self, ledger: Ledger, layout: ShardLayout, changed: Collection[str]) -> None:
        self._ledger, self._layout = ledger, layout
        self.waiting = dict.fromkeys(changed)

    def add(self, folder: Path, number: int) -> None:
        """Add the next block."""
        for row in self._without_alternatives(read_block(folder, number)):
            if "reason" in row:
                self._ledger.add_rejected(Rejected(**row))
                continue
            split, place = row.pop("source_split"), Place(number, row.pop("start"), row.pop("sizes"))
            if self._ledger.add_id(row["id"]):
                self._ledger.add(self._layout.add(row["split"], row["media"]) | row, place)
            else:
                self._ledger.add_rejected(reject_duplicate(row["id"], split, row["origin"]))

    def _without_alternatives(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Of a changed sample only the row that holds: as requests have changed it, unless an earlier sample was."""
        for row in rows:
            if not row.pop("is_changed", False):
                yield row
            elif row["id"] in self.waiting:
                del self.waiting[row["id"]]
                yield row
                next(rows)  # the same sample as it was
