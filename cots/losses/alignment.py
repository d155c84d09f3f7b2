"""Task level: both retrieval directions should rank the candidates alike."""

import torch.nn.functional as F
from torch import Tensor


def symmetric_kl(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """How differently two retrieval directions rank the same candidates.

        mean over rows of (KL(a || b) + KL(b || a)) / 2,   a, b = softmax of the logits

    Args:
        logits_a: (B, C), before softmax; column j stands for the same candidate in both.
        logits_b: (B, C).

    Returns:
        Scalar, nats, >= 0; zero if and only if both softmaxes are equal, or if there are no rows.

    Source: COTS, arXiv:2204.07441, task-level interaction.
    """
    a, b = logits_a.log_softmax(dim=1), logits_b.log_softmax(dim=1)
    forward = F.kl_div(b, a, reduction="sum", log_target=True)
    backward = F.kl_div(a, b, reduction="sum", log_target=True)
    return (forward + backward) / (2 * max(len(a), 1))
