"""Finds before the first training that a later one has fewer samples than a batch."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cots.config.training import FinetuneSection, PretrainSection
from cots.data.manifest import read_split
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
    table = read_split(manifest, "train", columns=["media"])
    if short := list(_too_large(table, params)):
        raise BadInput(f"too few training samples in {manifest}: {'; '.join(short)}: lower it, or add samples")


def _too_large(train: pd.DataFrame, params: BatchParams) -> Iterator[str]:
    if len(train) < params.pretrain.batch_size:
        yield f"pretrain.batch_size is {params.pretrain.batch_size}, there are {len(train)}"
    for target, run in params.finetune.items():
        media = MEDIA_OF[target]
        if (count := int((train["media"] == media).sum())) < run.batch_size:
            yield f"finetune.{target}.batch_size is {run.batch_size}, there are {count} {media}s"
