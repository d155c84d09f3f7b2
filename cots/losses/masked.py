"""Token level: predict the masked tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # in place of a target


def masked_cross_entropy(logits: Tensor, targets: Tensor, *, num_masked: int) -> Tensor:
    """Cross-entropy summed over masked positions, divided by the number of masked positions of the global batch.

        sum over positions of -log softmax(logits)[target] / num_masked

    Args:
        logits: (M, V), at masked positions only.
        targets: (M,) token ids; positions with `IGNORED` add nothing.
        num_masked: masked positions of the global batch. M gives the mean; parts of a batch add up to its loss.

    Returns:
        Scalar, nats, >= 0; ln V for uniform logits and M = num_masked; for M = 0 zero, still with a gradient path.
    """
    full_precision = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(full_precision, targets, reduction="sum", ignore_index=IGNORED) / max(num_masked, 1)
