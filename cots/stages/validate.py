"""Stage `validate`: checks the prepared data and stops the pipeline if a check fails."""

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cots.config.stages.validate import ValidateParams
from cots.data.manifest import MADE, read_pieces, schema_with
from cots.data.quality.audit import Audit, audit_manifest
from cots.data.quality.expectations import CheckResult, judge
from cots.data.quality.findings import list_findings
from cots.data.quality.look_alikes import MAX_ALIKE_BITS
from cots.data.quality.row_checks import manifest_checks
from cots.data.quality.suspects import read_suspects
from cots.data.samples import GALLERY
from cots.data.verdicts import read_verdicts
from cots.directions import MEDIA_OF
from cots.errors import BadInput, RunFailed, exit_on_error
from cots.file_names import SUMMARY
from cots.files import write_json


def stage(
    shards: Path,
    manifest: Path,
    rejected: Path,
    suspects: Path,
    out: Path,
    verdicts: Path | None = None,
    *,
    params: ValidateParams,
) -> None:
    """Write `summary.json`, which is deterministic, and the Data Docs.

    Args:
        shards, manifest, rejected: from stage `prepare`.
        suspects: the list of captions that a trained filter distrusts.
        out: the folder to write.
        verdicts: the list of those that people judged, which do not count any more; a dvc.yaml that was written before
            release 0.3 names none.
        params: of the project.

    Raises:
        BadInput: a table is missing, or the manifest has other columns.
        RunFailed: a check failed; summary and docs are written anyway.
    """
    limits, prepare = params.validate_, params.prepare
    reasons = _read_reasons(rejected)
    _require_captions(manifest)
    checks = manifest_checks(
        min_side=prepare.min_side,
        max_pixels=prepare.max_pixels,
        max_frames=prepare.max_frames,
        max_words=limits.max_caption_words,
        max_long=limits.max_long_captions,
        max_suspects=limits.max_suspects,
        has_made=MADE in pq.read_schema(manifest).names,
    )
    audit = audit_manifest(
        manifest,
        shards,
        read_suspects(suspects, read_verdicts(verdicts) if verdicts else ()),
        checks,
        sampled_shards=limits.sampled_shards,
        max_pixels=prepare.max_pixels,
    )
    findings = list_findings(
        audit,
        checks,
        reasons,
        required_parts={f"{split} {MEDIA_OF[params.index.target]}" for split in ("train", params.evaluate.split)},
        max_duplicates=limits.max_duplicates,
        max_leakage=limits.max_leakage,
    )
    results = judge(findings, out / "docs")
    _write_summary(out / SUMMARY, results, _overview(audit, reasons))
    _check(results, out)


def _read_reasons(rejected: Path) -> pd.Series:
    """Why samples were rejected, one for each."""
    if not rejected.is_file():
        raise BadInput(f"no table of rejected samples {rejected}: run `dvc repro prepare`")
    return pd.read_parquet(rejected, columns=["reason"])["reason"]


def _require_captions(manifest: Path) -> None:
    splits = (split for piece in read_pieces(manifest, ["split"]) for split in pc.unique(piece["split"]).to_pylist())
    captioned = any(split != GALLERY for split in splits)
    schema = pq.read_schema(manifest)
    if schema != schema_with(schema.names):
        raise BadInput(f"{manifest} has other columns than this version writes: run `dvc repro --force prepare`")
    if not captioned:
        raise BadInput(
            f"{manifest}: none of {pq.read_metadata(manifest).num_rows} samples has a caption, so there is nothing to "
            "train or measure on: add captions to the source, or search it without training by `cots index`"
        )


def _overview(audit: Audit, reasons: pd.Series) -> dict[str, Any]:
    """Counts for the summary that have no limit."""
    return {
        "samples": audit.parts,
        "captions": audit.captions,
        "wrong captions": audit.wrong,
        "rejected": dict(Counter(reasons)),
        f"val and test pictures that look like one in train ({MAX_ALIKE_BITS} of 64 bits)": audit.alike,
        "samples opened in shards": audit.opened.checked,
    }


def _write_summary(path: Path, results: list[CheckResult], overview: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    checks = sorted((asdict(result) for result in results), key=lambda check: str(check["expectation"]))
    write_json(path, {"success": all(result.success for result in results), "overview": overview, "checks": checks})


def _check(results: list[CheckResult], out: Path) -> None:
    failing = [f"{result.expectation} ({result.limit}): {result.observed}" for result in results if not result.success]
    if failing:
        details = "; ".join(failing)
        raise RunFailed(f"{len(failing)} of {len(results)} expectations are not met: {details}; see {out / SUMMARY}")


if __name__ == "__main__":
    with exit_on_error():
        stage(*map(Path, sys.argv[1:]), params=ValidateParams.load())
