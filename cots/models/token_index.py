"""Positions of the true elements of a mask, as indices."""

from typing import NamedTuple

from torch import Tensor


class TokenIndex(NamedTuple):
    """The M true positions of a mask (B, L), in row order.

    Counting them is a host-device sync; selecting by the indices afterwards is not. So it is done before a forward
    pass, while the device has nothing queued.
    """

    rows: Tensor  # (M,) row of each position
    flat: Tensor  # (M,) its index in the flattened mask

    @classmethod
    def from_mask(cls, mask: Tensor) -> "TokenIndex":
        """Indices of the true elements of a mask, (B, L) bool."""
        flat = mask.flatten().nonzero()[:, 0]
        return cls(flat // mask.shape[1], flat)

    def select(self, tokens: Tensor) -> Tensor:
        """The elements (M, ...) of (B, L, ...) at these positions."""
        return tokens.flatten(0, 1).index_select(0, self.flat)

    def shift(self, prefix: int) -> "TokenIndex":
        """The same positions in (B, prefix + L, ...), where `prefix` tokens precede those of the mask."""
        return TokenIndex(self.rows, self.flat + prefix * (self.rows + 1))
