"""Where a mask is true, as numbers of rows and positions."""

from typing import NamedTuple

from torch import Tensor


class TokenIndex(NamedTuple):
    """The M true positions of a mask (B, L), in row order.

    Counting them makes the processor wait for all that an accelerator has been given to do; what follows does not. So
    they are counted before a pass, while there is nothing to wait for.
    """

    rows: Tensor  # (M,) each one's row
    flat: Tensor  # (M,) its place in the flattened mask

    @classmethod
    def of(cls, mask: Tensor) -> "TokenIndex":
        """Of a mask (B, L) of bool."""
        flat = mask.flatten().nonzero()[:, 0]
        return cls(flat // mask.shape[1], flat)

    def select(self, tokens: Tensor) -> Tensor:
        """(M, ...) what stands there in (B, L, ...)."""
        return tokens.flatten(0, 1).index_select(0, self.flat)

    def shifted_by(self, prefix: int) -> "TokenIndex":
        """The same among (B, prefix + L, ...), whose first tokens the mask does not know."""
        return TokenIndex(self.rows, self.flat + prefix * (self.rows + 1))
