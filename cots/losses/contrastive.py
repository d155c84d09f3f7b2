"""Instance level: momentum contrast between the two streams."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cots.distributed import local_slice

IGNORED_LOGIT = -1e4  # a logit that no softmax sees; finite, so that a KL term stays free of inf - inf


def contrastive_logits(
    queries: Tensor, keys: Tensor, queue: Tensor, *, ignore_mask: Tensor, temperature: Tensor | float
) -> Tensor:
    """Similarity of each query with the keys of its batch and with the queue.

        [f . k_1 ... f . k_B, f . Q] / temperature

    Args:
        query: (R, D) unit rows, with gradient: R rows of the batch.
        keys: (B, D) unit rows of the other modality, one of each pair of the batch.
        queue: (K, D) past keys of the other modality; K may be 0.
        excluded: (R, B + K) bool, True = no candidate for this query. Everything but a query's own partner
            excluded among the first B columns gives MoCo's [f . k, f . Q].
        temperature: softmax temperature, > 0.

    Returns:
        (R, B + K).

    Source: COTS, arXiv:2204.07441; MoCo, arXiv:1911.05722, eq. 1; the batch's keys as in ALBEF, arXiv:2107.07651.
    """
    return (queries @ torch.cat([keys, queue]).T / temperature).masked_fill(ignore_mask, IGNORED_LOGIT)


def info_nce(logits: Tensor, targets: Tensor) -> Tensor:
    """How far the positives are from being chosen: mean over rows i of -log softmax(logits_i)[positives_i].

    Args:
        logits: (R, C).
        positives: (R,) column of each row's own partner.

    Returns:
        Scalar, nats, >= 0; ln C for uniform logits; zero, still with a gradient path, where there are no rows.
    """
    return F.cross_entropy(logits, targets, reduction="sum") / max(len(logits), 1)


def whole_batch(mine: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Where this process's pairs stand among those of all processes, and which of these are no negatives of theirs.

    Args:
        mine: (R,) the pairs' pictures, by number.
        samples: (B,) the pictures of all processes.

    Returns:
        (R,) column of each pair's own partner; (R, B) bool, True for other pairs of its picture.
    """
    positives = torch.arange(len(samples), device=samples.device)[local_slice(len(samples))]
    return positives, same_image_mask(mine, samples).scatter(1, positives[:, None], False)


def same_image_mask(samples: Tensor, others: Tensor) -> Tensor:
    """(R, C) bool: candidates that come from the query's own picture, by the numbers of the samples (R,) and (C,)."""
    return samples[:, None] == others
