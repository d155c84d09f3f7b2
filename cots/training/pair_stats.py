"""Statistics of each training pair: its similarity, and how often the filter dropped it."""

from typing import Self

import pandas as pd
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

    def to_table(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """The table that `cots.data.pairs` describes: one row per caption seen."""
        rows = manifest.loc[manifest["captions"].map(len) > 0, ["id", "captions"]].explode("captions")
        rows["caption"] = rows.groupby(level=0).cumcount()
        rows["score"], rows["seen"], rows["dropped"] = self.score.numpy(), self.seen.numpy(), self.dropped.numpy()
        return rows.loc[rows["seen"] > 0, PAIR_COLUMNS].reset_index(drop=True)
