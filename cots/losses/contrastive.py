"""Instance level: momentum contrast between the image and the text encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cots.distributed import local_slice

IGNORED_LOGIT = -1e4  # vanishes in the softmax; finite, so that no KL term computes inf - inf


def contrastive_logits(
    queries: Tensor, keys: Tensor, queue: Tensor, *, ignore_mask: Tensor, temperature: Tensor | float
) -> Tensor:
    """Cosine of each query with the keys of its batch and of the queue, divided by the temperature.

        [f . k_1 ... f . k_B, f . Q] / temperature

    Args:
        queries: (R, D) unit rows with gradient: R rows of the batch.
        keys: (B, D) unit rows of the other modality, one for each pair of the batch.
        queue: (K, D) past keys of the other modality; K may be 0.
        ignore_mask: (R, B + K) bool, True = not a candidate for this query. If it leaves only the query's partner
            among the first B columns, the logits are MoCo's [f . k, f . Q].
        temperature: softmax temperature, > 0.

    Returns:
        (R, B + K).

    Source: COTS, arXiv:2204.07441; MoCo, arXiv:1911.05722, eq. 1; the batch's keys as in ALBEF, arXiv:2107.07651.
    """
    return (queries @ torch.cat([keys, queue]).T / temperature).masked_fill(ignore_mask, IGNORED_LOGIT)


def info_nce(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the positives: mean over rows i of -log softmax(logits_i)[targets_i].

    Args:
        logits: (R, C).
        targets: (R,) column of each row's positive.

    Returns:
        Scalar, nats, >= 0; ln C for uniform logits; without rows zero, still with a gradient path.
    """
    return F.cross_entropy(logits, targets, reduction="sum") / max(len(logits), 1)


def multi_positive_info_nce(logits: Tensor, positives: Tensor) -> Tensor:
    """Cross-entropy with several positives: mean over rows i of the mean over P_i of -log softmax(logits_i)[p].

    Args:
        logits: (R, C).
        positives: (R, C) bool, P_i as True; a row without any counts as zero.

    Returns:
        Scalar, nats, >= 0; `info_nce` where every row has one positive; without rows zero, with a gradient path.

    Source: L_out of Supervised Contrastive Learning, arXiv:2004.11362, eq. 2.
    """
    log_likelihood = F.log_softmax(logits, dim=1).masked_fill(~positives, 0)
    return -(log_likelihood.sum(dim=1) / positives.sum(dim=1).clamp(min=1)).sum() / max(len(logits), 1)


def global_targets(image_index: Tensor, all_image_index: Tensor) -> tuple[Tensor, Tensor]:
    """Targets and ignore mask of this rank's pairs among the pairs of the global batch.

    Args:
        image_index: (R,) image of each of this rank's pairs.
        all_image_index: (B,) image of each pair of the global batch.

    Returns:
        (R,) column of each pair's own partner; (R, B) bool, True for other pairs of the same image.
    """
    count = len(all_image_index)
    targets = torch.arange(count, device=all_image_index.device)[local_slice(count)]
    return targets, other_pairs_mask(image_index, all_image_index, targets)


def other_pairs_mask(image_index: Tensor, candidates: Tensor, targets: Tensor) -> Tensor:
    """(R, C) bool, True for the pairs of a query's image but its own, which is in column `targets`, (R,)."""
    return same_image_mask(image_index, candidates).scatter(1, targets[:, None], False)


def same_image_mask(image_index: Tensor, candidates: Tensor) -> Tensor:
    """(R, C) bool, True where a candidate (C,) has the image number of the query (R,)."""
    return image_index[:, None] == candidates
