"""Token level: predict what was hidden."""

import torch.nn.functional as F
from torch import Tensor


def masked_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over hidden positions; zero, still with a gradient path, where nothing was hidden.

    Args:
        logits: (M, V) at hidden positions only.
        targets: (M,) token ids.

    Returns:
        Scalar, nats, >= 0; ln V for uniform logits.
    """
    return F.cross_entropy(logits.float(), targets, reduction="sum") / max(len(targets), 1)
