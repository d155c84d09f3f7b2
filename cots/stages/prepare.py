"""Stage `prepare`: turns a source into shards and a manifest, and lists rejected samples."""

import hashlib
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path

from cots.config.stages.prepare import PrepareParams
from cots.data.changes import (
    added_samples,
    images_folder,
    last_number,
    read_changes,
    require_images,
)
from cots.data.file_state import file_state
from cots.data.ingest.arrange import Arrangement
from cots.data.ingest.block import BlockIngestor
from cots.data.ingest.ingestor import Ingestor
from cots.data.ingest.ledger import Ledger, open_ledger
from cots.data.ingest.shard_writer import ShardLayout, start_shards, write_own_shards
from cots.data.manifest import LAST_CHANGE, REJECTED_SCHEMA, schema_with, write_pieces
from cots.data.sources.parts import PART_SIZE, Part, parts_of
from cots.data.store import finish_list
from cots.data.verdicts import read_verdicts, select_rejected
from cots.data.withdrawn import read_withdrawn
from cots.distributed import all_gather_object, barrier, broadcast_object, rank, world_size
from cots.errors import BadInput, RunFailed, exit_on_error
from cots.fingerprint import clear_unless_current, code_digest, fingerprint
from cots.init_distributed import SHARDS_TIMEOUT, init_distributed
from cots.progress import Progress

WORK = "prepare.partial"  # beside the manifest: finished blocks, for a run that goes on after an interruption
LEDGER = "ledger.sqlite"
DECODERS = ("pillow", "av", "numpy")  # packages on which pixels depend


def stage(
    source: Path,
    withdrawn: Path,
    shards: Path,
    manifest: Path,
    rejected: Path,
    verdicts: Path | None = None,
    changes: Path | None = None,
    *,
    params: PrepareParams,
) -> None:
    """Store the usable samples of the source, as requests have changed them, and list the rejected ones.

    Samples without captions are usable: they are stored in split `GALLERY`. A source may consist of them.

    Each rank opens the samples of its blocks; rank 0 then goes through the rows of all of them; then each rank writes
    its shards. Blocks that an interrupted run finished are reused. The number of ranks changes no byte.

    Args:
        source: the data.
        withdrawn: the list of samples that may not be used.
        shards, manifest, rejected: to write.
        verdicts: the list of captions that people judged; a dvc.yaml that was written before release 0.3 names none.
        changes: the list of samples that requests added or changed; likewise.
        params: of the project.

    Raises:
        BadInput: the source is unusable, or has no usable sample.
        RunFailed: the share of rejected samples exceeds `prepare.max_rejected`; shards and tables are written anyway.
    """
    rejected_pairs = select_rejected(read_verdicts(verdicts)) if verdicts else frozenset()
    ingestor = Ingestor(
        root=source,
        withdrawn=read_withdrawn(withdrawn),
        rejected_pairs=rejected_pairs,
        **params.prepare.dump_limits(),
    )
    listed = read_changes(changes) if changes else {}
    work, images = manifest.with_name(WORK), images_folder(changes) if changes else source
    require_images(listed, images)
    if rank() == 0:
        start_shards(shards, params.prepare.store)
    blocks = BlockIngestor(folder=work, ingestor=ingestor, changes=listed, images=images)
    _begin(work, _fingerprint(params, blocks))
    num_blocks = _ingest_own_blocks(blocks, params)
    layout = ShardLayout(params.prepare.samples_per_shard)
    with open_ledger(work / LEDGER) if rank() == 0 else nullcontext() as ledger:
        if ledger:
            _arrange(blocks, num_blocks, ledger, layout)
        layout = broadcast_object(layout)
        write_own_shards(shards, layout, ledger=work / LEDGER, blocks=work)
        barrier()
        if ledger:
            finish_list(shards)
            write_pieces(rejected, ledger.rejected(), REJECTED_SCHEMA)
            _check_share(ledger, layout.num_samples, rejected, limit=params.prepare.max_rejected)
            if not layout.num_samples:
                raise BadInput(
                    f"{source} has no usable sample: {ledger.reasons.total()} are rejected, "
                    f"for the reasons in {rejected}"
                )
            schema = schema_with(ledger.optional_columns)
            if listed:
                schema = schema.with_metadata({LAST_CHANGE: str(last_number(listed))})
            write_pieces(manifest, ledger.samples(), schema)
    if rank() == 0:
        shutil.rmtree(work)
        _tell_of_gallery(layout, limit=params.prepare.max_caption_chars)


def _fingerprint(params: PrepareParams, blocks: BlockIngestor) -> str:
    """Digest of all that blocks depend on, but for the source itself: the state of its parts is in each block."""
    ingestor, images = blocks.ingestor, blocks.images
    values = {
        "source": params.source.model_dump(mode="json", exclude={"path"}),
        "root": ascii(ingestor.root.resolve()),
        "limits": params.prepare.dump_limits(),
        "withdrawn": ingestor.withdrawn,
        "rejected pairs": sorted(ingestor.rejected_pairs),
        "changes": [ascii(asdict(change)) for change in blocks.changes.values()],
        "images": [
            ascii(file_state(images / change.image, images)) for change in blocks.changes.values() if change.image
        ],
    }
    return fingerprint(values, code_digest(DECODERS))


def _begin(work: Path, current: str) -> None:
    """Keep the blocks of an earlier run, unless they depend on something that is different now."""
    token = broadcast_object(secrets.token_hex(8))
    if rank() == 0:
        clear_unless_current(current, work)
        (work / token).touch()
    if current != broadcast_object(current):
        raise RunFailed(
            f"process {rank()} has other code, parameters or lists than process 0: give all the same project"
        )
    if not (work / token).exists():
        raise RunFailed(
            f"process {rank()} does not see {work} of process 0: prepare in a folder that all machines share"
        )


def _ingest_own_blocks(blocks: BlockIngestor, params: PrepareParams) -> int:
    """Make the blocks of every `world_size()`-th part, from this rank's on; the number of all parts."""
    source = params.source.model_copy(update={"path": blocks.ingestor.root})
    parts, num_samples = parts_of(source)
    names, numbers = hashlib.sha256(), count()

    def unfinished(shown: Progress | None) -> Iterator[tuple[int, Part]]:
        for part, number in zip(parts, numbers, strict=False):  # takes no number after the last part
            names.update(ascii(part.name).encode())
            if number % world_size() != rank():
                continue
            if (finished := blocks.count_reusable(number, part)) is None:
                yield number, part
            elif shown:
                shown.skip(finished)

    with Progress("prepare", total=_own_share(num_samples), unit="samples") if rank() == 0 else nullcontext() as shown:
        blocks.ingest(unfinished(shown), shown.advance if shown else lambda: None)
    if len(set(all_gather_object(names.digest()))) > 1:
        raise RunFailed(f"{source.path} changed while several processes listed it: run it again to resume")
    return next(numbers)


def _own_share(num_samples: int | None) -> int | None:
    """How many of the samples are in this rank's parts."""
    if num_samples is None:
        return None
    starts = range(rank() * PART_SIZE, num_samples, world_size() * PART_SIZE)
    return sum(min(PART_SIZE, num_samples - start) for start in starts)


def _arrange(blocks: BlockIngestor, num_blocks: int, ledger: Ledger, layout: ShardLayout) -> None:
    """Fill ledger and layout from all blocks, and from one more of the samples that requests have added."""
    arrangement = Arrangement(ledger, layout, blocks.changes)
    for number in range(num_blocks):
        arrangement.add(blocks.folder, number)
    added = [blocks.changes[name] for name in arrangement.waiting]
    if added:  # opened each time, because there are few
        part = Part("added by requests", partial(added_samples, added, blocks.images))
        replace(blocks, changes={}).ingest([(num_blocks, part)], lambda: None)
        arrangement.add(blocks.folder, num_blocks)
    ledger.complete()


def _tell_of_gallery(layout: ShardLayout, *, limit: int) -> None:
    if layout.num_in_gallery:
        print(
            f"prepare: {layout.num_in_gallery} of {layout.num_samples} samples have no caption of 1 to {limit} "
            "characters: they are indexed, but not trained or measured on",
            file=sys.stderr,
        )


def _check_share(ledger: Ledger, accepted: int, table: Path, *, limit: float) -> None:
    reasons = Counter({reason: number for reason, number in ledger.reasons.items() if reason != "withdrawn"})
    total = accepted + reasons.total()
    if not total or reasons.total() / total <= limit:
        return
    counts = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
    first = ledger.first_rejected
    assert first
    raise RunFailed(
        f"{reasons.total()} of {total} samples are rejected, more than prepare.max_rejected {limit:g} ({counts}); "
        f"first: {first.id}: {first.detail}; all are in {table}"
    )


if __name__ == "__main__":
    with exit_on_error(), init_distributed(timeout=SHARDS_TIMEOUT, needs_accelerator=False):
        params = PrepareParams.load()
        stage(params.source.path, *map(Path, sys.argv[1:]), params=params)
