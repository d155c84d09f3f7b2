"""Instance level: momentum contrast between the two streams."""

import torch
import torch.nn.functional as F
from torch import Tensor

EXCLUDED = -1e4  # a logit that no softmax sees; finite, so that a KL term stays free of inf - inf


def contrastive_logits(query: Tensor, keys: Tensor, queue: Tensor, *, excluded: Tensor, temperature: float) -> Tensor:
    """Similarity of each query with the keys of its batch and with the queue.

        [f . k_1 ... f . k_B, f . Q] / temperature

    Args:
        query: (B, D) unit rows, with gradient.
        keys: (B, D) unit rows of the other modality by the momentum stream; row i is the partner of query i.
        queue: (K, D) past keys of the other modality; K may be 0.
        excluded: (B, B + K) bool, True = no candidate for this query. Everything but the diagonal of the first B
            columns excluded gives MoCo's [f . k, f . Q].
        temperature: softmax temperature, > 0.

    Returns:
        (B, B + K); the positive of row i is column i.

    Source: COTS, arXiv:2204.07441; MoCo, arXiv:1911.05722, eq. 1; the batch's keys as in ALBEF, arXiv:2107.07651.
    """
    return (query @ torch.cat([keys, queue]).T / temperature).masked_fill(excluded, EXCLUDED)


def info_nce(logits: Tensor) -> Tensor:
    """How far the positives are from being chosen: mean over rows i of -log softmax(logits_i)[i].

    Args:
        logits: (B, C), C >= B; the positive of row i is column i.

    Returns:
        Scalar, nats, >= 0; ln C for uniform logits.
    """
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
