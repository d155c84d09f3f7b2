"""Statistics of each training pair: its similarity, and how often the filter dropped it."""

from collections.abc import Iterable
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from cots.data.pairs import PAIR_COLUMNS
from cots.objectives.protocol import KeyFeatures


class PairStats:
    """For each caption: latest similarity, times seen, times dropped.

    Args:
        num_captions: number of captions in the manifest.
    """

    def __init__(self, num_captions: int) -> None:
        self.score = torch.full((num_captions,), float("nan"))
        self.seen = torch.zeros(num_captions, dtype=torch.int32)
        self.dropped = torch.zeros(num_captions, dtype=torch.int32)

    def update(self, captions: Tensor, keys: KeyFeatures) -> None:
        """Add one step: the caption indices (B,) and keys of its global batch."""
        captions = captions.cpu()
        self.score[captions] = keys.similarity.float().cpu()
        self.seen[captions] += 1
        self.dropped[captions] += (~keys.keep_mask).int().cpu()

    def state_dict(self) -> dict[str, Tensor]:
        """The statistics for a checkpoint."""
        return {"score": self.score, "seen": self.seen, "dropped": self.dropped}

    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        """Load the statistics of a checkpoint."""
        self.score, self.seen, self.dropped = state["score"], state["seen"], state["dropped"]
        return self

    def to_table(self, manifest: Iterable[pa.RecordBatch]) -> pd.DataFrame:
        """The table that `cots.data.pairs` describes: one row per caption seen.

        Args:
            manifest: its columns `id` and `captions`, in pieces.
        """
        tables, first = [], 0
        for piece in manifest:
            captions = pc.list_value_length(piece["captions"]).to_numpy()
            ends = np.cumsum(captions)
            rows = slice(first, first := first + int(captions.sum()))
            seen = self.seen[rows].numpy()
            table = pd.DataFrame(
                {
                    "id": np.repeat(piece["id"].to_numpy(zero_copy_only=False), captions),
                    "caption": np.arange(len(seen)) - np.repeat(ends - captions, captions),
                    "score": self.score[rows].numpy(),
                    "seen": seen,
                    "dropped": self.dropped[rows].numpy(),
                }
            )
            tables.append(table.loc[seen > 0, PAIR_COLUMNS].astype({"id": "str"}))
        return pd.concat(tables, ignore_index=True)
