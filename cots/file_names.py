"""Names of files that one part writes and others read; `cots.index.index_folder` has those of an index."""

MANIFEST = "manifest.parquet"  # data/
CURVES, PAIRS = "curves.csv", "pairs.parquet"  # reports/pretrain, reports/finetune/<target>; the former in reports/dvae
CODEBOOK_USAGE = "usage.json"  # reports/dvae
SUMMARY = "summary.json"  # reports/validation, reports/drift
LINEAGE = "lineage.json"  # package/
