"""What a run learnt about each pair: how alike its halves are, and how often the filter dropped it."""

from typing import Self

import pandas as pd
import torch
from torch import Tensor

from cots.objectives.protocol import KeyFeatures


class PairStats:
    """Per caption of the data: latest similarity, times seen, times dropped.

    Args:
        captions: number of captions in the manifest.
    """

    def __init__(self, num_captions: int) -> None:
        self.score = torch.full((num_captions,), float("nan"))
        self.seen = torch.zeros(num_captions, dtype=torch.int32)
        self.dropped = torch.zeros(num_captions, dtype=torch.int32)

    def update(self, captions: Tensor, keys: KeyFeatures) -> None:
        """Take in one step: the numbers of its captions, (B,), and what was said of the pairs."""
        captions = captions.cpu()
        self.score[captions] = keys.similarity.float().cpu()
        self.seen[captions] += 1
        self.dropped[captions] += (~keys.keep_mask).int().cpu()

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"score": self.score, "seen": self.seen, "dropped": self.dropped}

    def load_state_dict(self, state: dict[str, Tensor]) -> Self:
        """Go on from a checkpoint."""
        self.score, self.seen, self.dropped = state["score"], state["seen"], state["dropped"]
        return self

    def to_table(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """One row a caption that was seen: id, caption (its place among the picture's), score, seen, dropped."""
        rows = manifest.loc[:, ["id", "captions"]].explode("captions")
        rows["caption"] = rows.groupby(level=0).cumcount()
        rows["score"], rows["seen"], rows["dropped"] = self.score.numpy(), self.seen.numpy(), self.dropped.numpy()
        return rows.loc[rows["seen"] > 0, ["id", "caption", "score", "seen", "dropped"]].reset_index(drop=True)
