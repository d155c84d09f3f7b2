"""Any source into shards and a manifest; what cannot be used into a list of rejects."""

import sys
from collections import Counter
from dataclasses import asdict
from operator import length_hint
from pathlib import Path
from typing import Any

from cots.config.stages.prepare import PrepareParams
from cots.data.ingest.ingestor import Ingestor, Rejected
from cots.data.ingest.shard_writer import ShardWriter, ingest
from cots.data.manifest import REJECTED_SCHEMA, SCHEMA, write_table
from cots.data.sources import SOURCES
from cots.data.withdrawn import read_withdrawn
from cots.errors import BadInput, RunFailed, exit_on_error
from cots.progress import Progress


def stage(
    source: Path, withdrawn: Path, shards: Path, manifest: Path, rejected: Path, *, params: PrepareParams
) -> None:
    """Store the usable samples of the source and list the others.

    Raises:
        BadInput: the source cannot be used, or has nothing to train on.
        RunFailed: more of it is rejected than `prepare.max_rejected`; shards and tables are written all the same.
    """
    settings = params.prepare.model_dump(exclude={"samples_per_shard", "max_rejected", "max_frames"})
    intake = Ingestor(
        root=source.resolve(), withdrawn=read_withdrawn(withdrawn), frames=params.prepare.max_frames, **settings
    )
    folder = ShardWriter(shards, samples_per_shard=params.prepare.samples_per_shard)
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    samples = SOURCES[params.source.kind](**params.source.model_dump(exclude={"kind", "path"}), path=source)
    with Progress("prepare", total=length_hint(samples) or None, unit="samples") as progress:
        for outcome in ingest(samples, intake):
            if isinstance(outcome, Rejected):
                refused.append(asdict(outcome))
            else:
                rows.append(folder.add(outcome))
            progress.advance()
    folder.close()
    write_table(rejected, refused, REJECTED_SCHEMA)
    _check_share(refused, len(rows), rejected, limit=params.prepare.max_rejected)
    if not any(row["split"] == "train" for row in rows):
        raise BadInput(f"{source} has no usable sample of split train: there is nothing to train on")
    write_table(manifest, sorted(rows, key=lambda row: str(row["key"])), SCHEMA)


def _check_share(refused: list[dict[str, Any]], taken: int, table: Path, *, limit: float) -> None:
    refused = [row for row in refused if row["reason"] != "withdrawn"]
    total = taken + len(refused)
    if not total or len(refused) / total <= limit:
        return
    reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(row["reason"] for row in refused).most_common())
    first = refused[0]
    raise RunFailed(
        f"{len(refused)} of {total} samples are rejected, more than prepare.max_rejected {limit:g} ({reasons}); "
        f"first: {first['id']}: {first['detail']}; all are in {table}"
    )


if __name__ == "__main__":
    with exit_on_error():
        stage(*map(Path, sys.argv[1:]), params=PrepareParams.load())
