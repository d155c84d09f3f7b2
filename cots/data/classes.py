"""The classes of training samples, from a column of the source."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cots.data.ingest.metadata import metadata_field
from cots.data.manifest import read_pieces
from cots.errors import BadInput

NO_CLASS = -1


class SampleClasses(NamedTuple):
    """The class of each sample of a manifest."""

    names: tuple[str, ...]  # sorted; those of the training samples
    numbers: NDArray[np.int64]  # (N,) number of each sample's class among them, or NO_CLASS; in the manifest's order


def read_classes(manifest: Path, column: str, media: tuple[str, ...]) -> SampleClasses:
    """The classes of the samples to train on.

    Args:
        manifest: the manifest file.
        column: field of the samples' metadata with the class.
        media: "image" and/or "video": the samples to train on.

    Raises:
        BadInput: fewer than two classes occur in their training split.
    """
    values: list[str | None] = []
    for piece in read_pieces(manifest, ["split", "media", "metadata"]):
        rows = zip(*(piece[name].to_pylist() for name in ("split", "media", "metadata")), strict=True)
        values += [
            metadata_field(metadata, column) if split == "train" and kind in media else None
            for split, kind, metadata in rows
        ]
    names = sorted({value for value in values if value is not None})
    if len(names) < 2:
        known = ", ".join(names) or "none"
        raise BadInput(
            f"class_column {column!r:.100}: the training samples in {manifest} have fewer than two classes "
            f"({known:.100}): name a column of the source that holds classes, or set the weights class_contrast and "
            "classification to 0"
        )
    numbers = {name: number for number, name in enumerate(names)}
    of_samples = np.array([NO_CLASS if value is None else numbers[value] for value in values], np.int64)
    return SampleClasses(tuple(names), of_samples)
