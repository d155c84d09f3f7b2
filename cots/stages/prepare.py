"""Stage `prepare`: turns a source into shards and a manifest, and lists rejected samples."""

import sys
from collections import Counter
from dataclasses import asdict
from operator import length_hint
from pathlib import Path
from typing import Any

from cots.config.stages.prepare import PrepareParams
from cots.data.changes import apply_changes, images_folder, last_number, read_changes
from cots.data.ingest.ingestor import Ingestor, Rejected
from cots.data.ingest.shard_writer import ShardWriter, ingest
from cots.data.manifest import LANGUAGES, LAST_CHANGE, REJECTED_SCHEMA, SCHEMA, WITH_LANGUAGES, write_table
from cots.data.samples import GALLERY
from cots.data.verdicts import read_verdicts, select_rejected
from cots.data.withdrawn import read_withdrawn
from cots.errors import BadInput, RunFailed, exit_on_error
from cots.progress import Progress


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
    settings = params.prepare.dump_limits()
    rejected_pairs = select_rejected(read_verdicts(verdicts)) if verdicts else frozenset()
    ingestor = Ingestor(root=source, withdrawn=read_withdrawn(withdrawn), rejected_pairs=rejected_pairs, **settings)
    writer = ShardWriter(shards, samples_per_shard=params.prepare.samples_per_shard, store=params.prepare.store)
    rows: list[dict[str, Any]] = []
    rejected_rows: list[dict[str, Any]] = []
    samples = params.source.model_copy(update={"path": source}).read()
    total = length_hint(samples) or None
    listed = read_changes(changes) if changes else {}
    if changes and listed:
        samples = apply_changes(samples, listed, images_folder(changes))
    with Progress("prepare", total=total, unit="samples") as progress:
        for outcome in ingest(samples, ingestor):
            if isinstance(outcome, Rejected):
                rejected_rows.append(asdict(outcome))
            else:
                rows.append(writer.add(outcome))
            progress.advance()
    writer.close()
    write_table(rejected, rejected_rows, REJECTED_SCHEMA)
    _check_share(rejected_rows, len(rows), rejected, limit=params.prepare.max_rejected)
    in_gallery = sum(row["split"] == GALLERY for row in rows)
    if not rows:
        raise BadInput(
            f"{source} has no usable sample: {len(rejected_rows)} are rejected, for the reasons in {rejected}"
        )
    if in_gallery:
        limit = params.prepare.max_caption_chars
        print(
            f"prepare: {in_gallery} of {len(rows)} samples have no caption of 1 to {limit} characters: they are "
            "indexed, but not trained or measured on",
            file=sys.stderr,
        )
    schema = WITH_LANGUAGES if any(row[LANGUAGES] for row in rows) else SCHEMA
    if listed:
        schema = schema.with_metadata({LAST_CHANGE: str(last_number(listed))})
    write_table(manifest, sorted(rows, key=lambda row: int(str(row["key"]))), schema)


def _check_share(rejected_rows: list[dict[str, Any]], accepted: int, table: Path, *, limit: float) -> None:
    rejected_rows = [row for row in rejected_rows if row["reason"] != "withdrawn"]
    total = accepted + len(rejected_rows)
    if not total or len(rejected_rows) / total <= limit:
        return
    reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(row["reason"] for row in rejected_rows).most_common())
    first = rejected_rows[0]
    raise RunFailed(
        f"{len(rejected_rows)} of {total} samples are rejected, more than prepare.max_rejected {limit:g} ({reasons}); "
        f"first: {first['id']}: {first['detail']}; all are in {table}"
    )


if __name__ == "__main__":
    with exit_on_error():
        params = PrepareParams.load()
        stage(params.source.path, *map(Path, sys.argv[1:]), params=params)
