"""Holds the prepared data against what must be true of it; data that fails goes no further."""

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from cots.config.stages.validate import ValidateParams
from cots.data.manifest import SCHEMA, read_manifest
from cots.data.quality.audit import ALIKE_BITS, audit_manifest
from cots.data.quality.expectations import CheckResult, validate_manifest
from cots.data.quality.suspects import read_suspects
from cots.directions import MEDIA_OF
from cots.errors import BadInput, RunFailed, exit_on_error
from cots.file_names import SUMMARY
from cots.files import write_json


def stage(shards: Path, manifest: Path, rejected: Path, suspects: Path, out: Path, *, params: ValidateParams) -> None:
    """Write `summary.json`, which is the same for the same data, and the Data Docs.

    Raises:
        BadInput: a table is missing, or the manifest is of another make.
        RunFailed: an expectation is not met; summary and docs are written all the same.
    """
    table, refused = read_manifest(manifest), _rejects(rejected)
    if not pq.read_schema(manifest).equals(SCHEMA):
        raise BadInput(f"{manifest} has other columns than this version writes: run `dvc repro --force prepare`")
    limits, door = params.validate_, params.prepare
    figures = audit_manifest(
        table,
        shards,
        read_suspects(suspects),
        sampled_shards=limits.sampled_shards,
        max_pixels=door.max_pixels,
    )
    verdicts = validate_manifest(
        figures,
        refused,
        out / "docs",
        parts=[f"{split} {MEDIA_OF[params.index.target]}" for split in ("train", params.evaluate.split)],
        min_side=door.min_side,
        max_pixels=door.max_pixels,
        max_frames=door.max_frames,
        max_words=limits.max_caption_words,
        max_duplicates=limits.max_duplicates,
        max_leakage=limits.max_leakage,
        max_suspects=limits.max_suspects,
    )
    _write_summary(out / SUMMARY, verdicts, _overview(figures, refused))
    _check(verdicts, out)


def _rejects(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BadInput(f"no table of rejects {path}: run `dvc repro prepare`")
    return pd.read_parquet(path)


def _overview(figures: pd.DataFrame, refused: pd.DataFrame) -> dict[str, Any]:
    """What is worth knowing and has no limit."""
    return {
        "samples": dict(Counter(figures["part"])),
        "captions": int(figures["captions"].sum()),
        "wrong captions": int(figures["wrong"].sum()),
        "rejected": dict(Counter(refused["reason"])),
        f"val and test pictures that look like one in train ({ALIKE_BITS} of 64 bits)": int(figures["alike"].sum()),
        "samples opened in shards": int(figures["opened"].count()),
    }


def _write_summary(path: Path, verdicts: list[CheckResult], overview: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    checks = sorted((asdict(verdict) for verdict in verdicts), key=lambda check: str(check["expectation"]))
    write_json(path, {"success": all(v.success for v in verdicts), "overview": overview, "checks": checks})


def _check(verdicts: list[CheckResult], out: Path) -> None:
    failing = [f"{v.expectation} ({v.limit}): {v.observed}" for v in verdicts if not v.success]
    if failing:
        told = "; ".join(failing)
        raise RunFailed(f"{len(failing)} of {len(verdicts)} expectations are not met: {told}; see {out / SUMMARY}")


if __name__ == "__main__":
    with exit_on_error():
        stage(*map(Path, sys.argv[1:]), params=ValidateParams.load())
