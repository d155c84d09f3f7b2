"""Token level: predict what was hidden."""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_cross_entropy(logits: Tensor, targets: Tensor, *, out_of: int) -> Tensor:
    """Cross-entropy summed over hidden positions, as a share of all that the batch hides.

        sum over positions of -log softmax(logits)[target] / out_of

    Args:
        logits: (M, V) at hidden positions only.
        targets: (M,) token ids.
        out_of: hidden positions of the whole batch; M gives the mean, and parts of a batch add up to it.

    Returns:
        Scalar, nats, >= 0; ln V for uniform logits and M = out_of; zero, still with a gradient path, for M = 0.
    """
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(precise, targets, reduction="sum") / max(out_of, 1)
