"""Makes blocks: opens the samples of one part of a source, and sets aside what became of them."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePath
from typing import NamedTuple

from cots.data.bucket import in_bucket
from cots.data.changes import Change, with_changes
from cots.data.file_state import file_state
from cots.data.ingest.block_files import Row, block_files, dump_row, read_last_row
from cots.data.ingest.ingestor import IngestedSample, Ingestor, Rejected
from cots.data.manifest import LANGUAGES, MADE
from cots.data.samples import Sample, is_utf8
from cots.data.sources.layout_io import is_file
from cots.data.sources.parts import Part
from cots.decode_threads import decode_in_threads
from cots.files import atomic_file

BESIDE_CONTENT = attrgetter(*(field.name for field in fields(Sample) if field.name != "content"))


class _Item(NamedTuple):
    """A sample that is to be opened, or the end of a part.

    Attributes:
        block: its number.
        sample: None at the end.
        is_changed: whether it is as requests have changed it.
        describe: gives what its outcome depends on; None if the state of the part tells.
        part_state: at the end.
    """

    block: int
    sample: Sample | None = None
    is_changed: bool = False
    describe: Callable[[Sample], str] | None = None
    part_state: str = ""


class _Opened(NamedTuple):
    """What became of an item.

    Attributes:
        item: as it was.
        description: on which the outcome depends, or the state of the part; a random one is of a block to make again.
        outcome: None at the end of a part.
    """

    item: _Item
    description: str
    outcome: IngestedSample | Rejected | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIngestor:
    """Makes blocks.

    Attributes:
        folder: of their files.
        ingestor: opens the samples.
        changes: that requests have made of samples, by id.
        images: the folder of the images that changes name.
    """

    folder: Path
    ingestor: Ingestor
    changes: Mapping[str, Change]
    images: Path

    def count_reusable(self, number: int, part: Part) -> int | None:
        """The number of samples in the block of a part; None if there is no whole block of the part as it is now."""
        rows, frames = block_files(self.folder, number)
        last = read_last_row(rows) if rows.is_file() and frames.is_file() else {}
        if not last or last["bytes"] != frames.stat().st_size or last["state"] != self._part_state(part):
            return None
        return int(last["samples"])

    def ingest(self, parts: Iterable[tuple[int, Part]], advance: Callable[[], object]) -> None:
        """Make the blocks of parts, one after another; samples of the next one are opened while one ends.

        Where requests have changed a sample, its block has it twice, as they have changed it and then as it was: of all
        samples with an id only the first is changed, and that may be in an earlier block.

        Args:
            parts: of the source with their numbers, drawn as they are needed.
            advance: called when a sample is done.
        """
        outcomes = decode_in_threads(self._list_items(parts), self._open, max_pixels=self.ingestor.max_pixels)
        for number, of_block in groupby(outcomes, key=lambda opened: opened.item.block):
            self._write(number, of_block, advance)

    def _list_items(self, parts: Iterable[tuple[int, Part]]) -> Iterator["_Item"]:
        for number, part in parts:
            describe = None if part.state else self._describer()
            end = _Item(number, part_state=_state_of(part))  # before anything is read
            for sample, is_changed in with_changes(part.read(), self.changes, self.images):
                yield _Item(number, sample, is_changed, None if is_changed else describe)
            yield end

    def _open(self, item: "_Item") -> "_Opened":
        if item.sample is None:
            return _Opened(item, item.part_state, None)
        description = item.describe(item.sample) if item.describe else ""  # before its file is read
        outcome = self.ingestor(item.sample)
        return _Opened(item, secrets.token_hex() if _may_pass(item, outcome) else description, outcome)

    def _write(self, number: int, of_block: Iterable["_Opened"], advance: Callable[[], object]) -> None:
        rows_path, frames_path = block_files(self.folder, number)
        rows_path.unlink(missing_ok=True)  # of other frames than those that follow
        state, count, offset = hashlib.sha256(), 0, 0
        with atomic_file(rows_path) as partial, partial.open("wb") as rows, frames_path.open("wb") as frames:
            for item, description, outcome in of_block:
                state.update(description.encode())
                if isinstance(outcome, IngestedSample) and item.sample:
                    row = _usable_row(outcome, source_split=item.sample.split, start=offset)
                    offset += sum(map(frames.write, outcome.frames))
                elif outcome:
                    row = asdict(outcome)
                else:
                    row = {"state": state.hexdigest(), "samples": count, "bytes": offset}
                rows.write(dump_row(row | {"is_changed": True} if item.is_changed else row))
                if outcome and not item.is_changed:
                    count += 1
                    advance()

    def _part_state(self, part: Part) -> str:
        state = hashlib.sha256()
        if part.state is None:
            descriptions = decode_in_threads(part.read(), self._describer(), max_pixels=self.ingestor.max_pixels)
            for description in descriptions:
                state.update(description.encode())
        state.update(_state_of(part).encode())
        return state.hexdigest()

    def _describer(self) -> Callable[[Sample], str]:
        """A function that gives all that the outcome of a sample depends on, besides limits and lists."""
        root, resolve = self.ingestor.root, lru_cache(maxsize=None)(os.path.realpath)

        def describe(sample: Sample) -> str:
            if not isinstance(sample.content, PurePath):
                content: object = sample.content
            elif in_bucket(sample.content) and (sample.fault or not is_utf8(sample.id)):
                content = None  # no bucket is asked for it
            else:
                content = file_state(sample.content, root, resolve=resolve)
            listing = sample.listing
            lies_at = str(listing.resolve()) if listing and in_bucket(listing) else listing and resolve(listing)
            return repr((BESIDE_CONTENT(sample), content, lies_at))

        return describe


def _may_pass(item: _Item, outcome: IngestedSample | Rejected) -> bool:
    """Whether a sample is rejected for what may be over soon: a busy machine, a file that is there but unreadable."""
    if not isinstance(outcome, Rejected) or item.sample is None:
        return False
    content = item.sample.content
    is_there = item.is_changed or (isinstance(content, Path) and is_file(content))
    return outcome.reason == "too slow" or (outcome.reason == "no such file" and is_there)


def _state_of(part: Part) -> str:
    return repr((part.name, part.state and part.state()))


def _usable_row(sample: IngestedSample, *, source_split: str, start: int) -> Row:
    return {
        "id": sample.id,
        "split": sample.split,
        "media": sample.media,
        "captions": sample.captions,
        "wrong": sample.is_mismatched,
        "frames": len(sample.frames),
        "width": sample.width,
        "height": sample.height,
        "bytes": sum(map(len, sample.frames)),
        "pixel_hash": sample.pixel_hash,
        "dhash": sample.dhash,
        "origin": sample.origin,
        "metadata": sample.metadata,
        LANGUAGES: sample.languages or None,
        MADE: sample.is_made or None,
        "source_split": source_split,
        "start": start,
        "sizes": [len(frame) for frame in sample.frames],
    }
