"""What is off by default: parameters that switch each addition to the paper on, and data that has what they need."""

import json
from pathlib import Path
from typing import Any

from cots.data.manifest import read_manifest, schema_with, write_table
from cots.data.samples import StoredSample
from cots.data.shards import read_shard, write_shard

LEVELS = {"instance": 1.0, "token": 0.5, "task": 0.1}
ADDITIONS: dict[str, dict[str, dict[str, Any]]] = {  # arguments of `tiny_params`
    "languages": {
        "pretrain": {"captions_per_sample": 2, "language_temperature": 3.0},
        "objective": {"loss_weights": LEVELS | {"translation": 1.0}},
    },
    "labels": {
        "pretrain": {"captions_per_sample": 3},
        "objective": {"loss_weights": LEVELS, "filter": {"warmup_steps": 1, "num_std": 0.5, "momentum": 0.5}},
    },
    "shared layers": {
        "model": {"shared_blocks": 1},
        "pretrain": {"captions_per_sample": 2},
        "objective": {"loss_weights": LEVELS | {"within_modality": 0.5}},
    },
    "documents": {
        "pretrain": {"captions_per_sample": 2},
        "objective": {"loss_weights": LEVELS | {"class_contrast": 0.5, "classification": 1.0}},
    },
}
CLASSES = {"red": "warm", "green": "cold", "blue": "warm", "yellow": "cold"}  # of other colours none


def write_annotated(data: Path, folder: Path, *, tagged: bool = True) -> Path:
    """Write a copy of `tiny_data` whose captions are in two languages, with classes, and captions made from these.

    Args:
        data: `tiny_data`; folder: a new one, which is returned.
        tagged: False leaves out all that says so: languages, classes, and which captions are made.
    """
    manifest = read_manifest(data / "manifest.parquet")
    rows: list[Any] = manifest.to_dict("records")
    for row in rows:
        colour = row["id"].rsplit("-", 1)[-1]
        label = CLASSES.get(colour)
        made = [f"something {label}"] if label and row["split"] == "train" else []
        row["captions"] = [row["captions"][0], f"ein Quadrat in {colour}", *made]
        row["wrong"] = [*row["wrong"], *(False for _ in made)]
        row["metadata"] = json.dumps({"class": label}) if label and tagged else None
        if tagged:
            row["languages"] = ["en", "de", *("" for _ in made)]
            row["made"] = [False, False, True] if made else None
    for shard in manifest["shard"].unique():
        stored = read_shard(data / "shards" / shard)
        of_shard = [row for row in rows if row["shard"] == shard]
        write_shard(
            folder / "shards" / shard,
            [
                StoredSample(
                    key=sample.key,
                    id=sample.id,
                    captions=tuple(row["captions"]),
                    frames=sample.frames,
                    languages=tuple(row.get("languages", ())),
                )
                for sample, row in zip(stored, of_shard, strict=True)
            ],
        )
    write_table(folder / "manifest.parquet", rows, schema_with({"languages", "made"} if tagged else set()))
    return folder
