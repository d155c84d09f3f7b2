"""Stage `prepare`: turns a source into shards and a manifest, and lists rejected samples."""

import sys
from collections import Counter
from operator import length_hint
from pathlib import Path

from cots.config.stages.prepare import PrepareParams
from cots.data.changes import apply_changes, images_folder, last_number, read_changes
from cots.data.ingest.ingestor import Ingestor, Rejected
from cots.data.ingest.ledger import Ledger, open_ledger
from cots.data.ingest.shard_writer import ShardWriter, ingest
from cots.data.manifest import LAST_CHANGE, REJECTED_SCHEMA, schema_with, write_pieces
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
    samples = params.source.model_copy(update={"path": source}).read()
    total = length_hint(samples) or None
    listed = read_changes(changes) if changes else {}
    if changes and listed:
        samples = apply_changes(samples, listed, images_folder(changes))
    with open_ledger(manifest.with_name("ledger.partial")) as ledger:
        with Progress("prepare", total=total, unit="samples") as progress:
            for outcome in ingest(samples, ingestor, ledger.add_id):
                if isinstance(outcome, Rejected):
                    ledger.add_rejected(outcome)
                else:
                    ledger.add(writer.add(outcome))
                progress.advance()
        writer.close()
        write_pieces(rejected, ledger.rejected(), REJECTED_SCHEMA)
        _check_share(ledger, writer.num_samples, rejected, limit=params.prepare.max_rejected)
        if not writer.num_samples:
            raise BadInput(
                f"{source} has no usable sample: {ledger.reasons.total()} are rejected, for the reasons in {rejected}"
            )
        schema = schema_with(ledger.optional_columns)
        if listed:
            schema = schema.with_metadata({LAST_CHANGE: str(last_number(listed))})
        write_pieces(manifest, ledger.samples(), schema)
    if writer.num_in_gallery:
        limit = params.prepare.max_caption_chars
        print(
            f"prepare: {writer.num_in_gallery} of {writer.num_samples} samples have no caption of 1 to {limit} "
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
    with exit_on_error():
        params = PrepareParams.load()
        stage(params.source.path, *map(Path, sys.argv[1:]), params=params)
