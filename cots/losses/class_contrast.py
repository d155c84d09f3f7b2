"""Contrast by class: images and texts of one class lie together, within a modality and between the two."""

from torch import Tensor

from cots.losses.contrastive import contrastive_logits, multi_positive_info_nce


def class_contrast(
    queries: Tensor,
    candidates: Tensor,
    *,
    classes: Tensor,
    candidate_classes: Tensor,
    excluded: Tensor | None,
    temperature: Tensor | float,
) -> Tensor:
    """How far queries lie from the candidates of their class, relative to all candidates.

        mean over rows i of the mean over P_i of -log softmax_(j in A_i)(q_i . c_j / temperature)_p
        A_i: candidates that have a class and are not excluded;   P_i: those in A_i of the class of i

    Args:
        queries: (R, D) unit rows.
        candidates: (B, D) unit rows, of either modality.
        classes: (R,) number of each query's class, -1 = none: such a row counts as zero.
        candidate_classes: (B,) likewise; candidates without a class are neither positive nor negative.
        excluded: (R, B) bool, True = not a candidate of this query, such as itself; None: all are.
        temperature: softmax temperature, > 0.

    Returns:
        Scalar, nats, >= 0; ln B for uniform logits without exclusions. A row whose P_i is empty counts as zero; without
        rows zero, with a gradient path.

    Source: L_out of Supervised Contrastive Learning, arXiv:2004.11362, eq. 2, which VLCDoC, arXiv:2205.12029, applies
    within and between the modalities of documents.
    """
    unknown = (candidate_classes < 0).expand(len(queries), -1)
    ignored = unknown if excluded is None else unknown | excluded
    positives = (classes[:, None] == candidate_classes) & ~ignored
    logits = contrastive_logits(queries, candidates, candidates[:0], ignore_mask=ignored, temperature=temperature)
    return multi_positive_info_nce(logits, positives)
