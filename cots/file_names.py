"""Files that one stage or command writes and another reads: their names, and the paths that `dvc.yaml` gives them.

The names of an index's files are in `cots.index.index_folder`.
"""

from pathlib import Path

MANIFEST = "manifest.parquet"  # in data/
CURVES = "curves.csv"  # in reports/pretrain, reports/finetune/<target> and reports/dvae
PAIRS = "pairs.parquet"  # in reports/pretrain and reports/finetune/<target>
CODEBOOK_USAGE = "usage.json"  # in reports/dvae
SUMMARY = "summary.json"  # in reports/validation and reports/drift
LINEAGE = "lineage.json"  # in package/

DATA, REPORTS = Path("data"), Path("reports")  # in the project's folder, as are all paths below
MANIFEST_PATH, SHARDS_PATH = DATA / MANIFEST, DATA / "shards"
PRETRAIN_PAIRS_PATH = REPORTS / "pretrain" / PAIRS
METRICS_PATH, REPORT_PATH = REPORTS / "metrics.json", REPORTS / "index.html"
DRIFT_SUMMARY_PATH = REPORTS / "drift" / SUMMARY
WITHDRAWN_PATH, SUSPECTS_PATH, VERDICTS_PATH = Path("withdrawn.csv"), Path("suspects.csv"), Path("verdicts.csv")
CHANGES_PATH = Path("changes.jsonl")
