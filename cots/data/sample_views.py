"""Training samples with their crop views, read one by one from a shard and its file of views."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cots.data.crop_views import CropViews
from cots.data.random_crop import Box
from cots.data.samples import StoredSample
from cots.data.shards import ShardReader
from cots.errors import BadInput


class SampleView(NamedTuple):
    """A stored sample with one of its crop views."""

    sample: StoredSample
    place: tuple[int, int, int]  # number of the shard, of the view, and of the sample in its shard
    frame: int  # index of the frame that the view shows
    box: Box
    tokens: NDArray[np.uint16]
    other: "SampleView | None" = None  # the sample's next view, if two crops are compared


class OpenShard:
    """A shard and its crop views, of which samples are read one by one.

    Args:
        number: of the shard.
        shard: tar file.
        views: file of crop views.

    Raises:
        BadInput: a file is missing or damaged, or the views are not those of the shard.
    """

    def __init__(self, number: int, shard: Path, views: Path) -> None:
        self.number, self.samples, self.crops = number, ShardReader(shard), CropViews.load(views)
        if len(self.samples) != len(self.crops.frames):
            raise BadInput(
                f"{views} has views of {len(self.crops.frames)} samples, and {shard} has {len(self.samples)}: "
                "run `dvc repro --force tokenize`"
            )

    def read(self, row: int, views: list[int]) -> SampleView:
        """A sample with one of its views, or with two."""
        sample = self.samples[row]
        view, *others = [
            SampleView(
                sample,
                (self.number, number, row),
                int(self.crops.frames[row, number]),
                self.crops.boxes[row, number].tolist(),
                self.crops.tokens[row, number],
            )
            for number in views
        ]
        return view._replace(other=others[0]) if others else view
