"""Finds before the first training that a later one has fewer samples than a batch."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from cots.config.training import FinetuneSection, PretrainSection
from cots.data.manifest import read_pieces
from cots.directions import MEDIA_OF
from cots.errors import BadInput


class BatchParams(PretrainSection, FinetuneSection):
    """Sections whose batches are filled from the training samples."""


def require_enough_samples(manifest: Path, params: BatchParams) -> None:
    """Check that the training split fills one batch of pre-training and of each fine-tuning.

    A refresh and a withdrawal train nothing, so this is no check of stage `validate`.

    Raises:
        BadInput: it does not; the message names each batch that is too large.
    """
    if short := list(_too_large(_count_train(manifest), params)):
        raise BadInput(f"too few training samples in {manifest}: {'; '.join(short)}: lower it, or add samples")


def _count_train(manifest: Path) -> Counter[str]:
    """The number of training samples, by medium."""
    counts = Counter[str]()
    for piece in read_pieces(manifest, ["split", "media"]):
        media = piece["media"].filter(pc.equal(piece["split"], "train")).value_counts()
        counts.update({entry["values"]: entry["counts"] for entry in media.to_pylist()})
    return counts


def _too_large(train: Counter[str], params: BatchParams) -> Iterator[str]:
    if train.total() < params.pretrain.batch_size:
        yield f"pretrain.batch_size is {params.pretrain.batch_size}, there are {train.total()}"
    for target, run in params.finetune.items():
        media = MEDIA_OF[target]
        if train[media] < run.batch_size:
            yield f"finetune.{target}.batch_size is {run.batch_size}, there are {train[media]} {media}s"
