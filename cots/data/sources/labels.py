"""Labels of samples: captions of those that have no other, and captions that were made from them, for training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from cots.data.samples import Sample, Split
from cots.data.sources.layout_io import SPLIT_NAMES


def caption_by_label(samples: Sequence[Sample], column: str, made: Mapping[str, Sequence[str]]) -> list[Sample]:
    """Caption samples by their labels.

    A sample without captions has its label as its only one, in every split: people gave it. A sample of the training
    split then gets the captions that were made from its label, marked as made; samples of other splits never do.

    Args:
        samples: of a source.
        column: of their metadata with the label; samples without one stay as they are.
        made: captions by label.
    """
    return [_caption(sample, label_of(sample.metadata, column), made) for sample in samples]


def label_of(metadata: Mapping[str, Any], column: str) -> str:
    """The label in a column of a sample's metadata; empty if it has none."""
    return str(metadata.get(column, "")).strip()


def _caption(sample: Sample, label: str, made: Mapping[str, Sequence[str]]) -> Sample:
    if not label or sample.fault:
        return sample
    if not any(text.strip() for text in sample.captions):
        sample = replace(sample, captions=(label,), is_mismatched=(False,), languages=())
    given = {text.strip() for text in sample.captions}
    new = [text for text in made.get(label, ()) if text not in given] if sample.split == "train" else []
    if not new:
        return sample
    return replace(
        sample,
        captions=(*sample.captions, *new),
        is_mismatched=(*sample.is_mismatched, *(False for _ in new)),
        languages=(*sample.languages, *("" for _ in new)) if sample.languages else (),
        is_made=(*(False for _ in sample.captions), *(True for _ in new)),
    )


def label_of_file(name: str) -> tuple[Split | None, str | None]:
    """The split and label of a file by the folders that it lies in, as in ImageNet and torchvision's ImageFolder.

        dog/1.jpg  ->  None, dog          train/dog/1.jpg  ->  train, dog          1.jpg  ->  None, None

    Args:
        name: path relative to the data set's folder.
    """
    folders = PurePosixPath(name).parts[:-1]
    split = SPLIT_NAMES.get(folders[0].lower()) if len(folders) > 1 else None
    label = folders[1 if split else 0] if folders else None
    return split, label
