"""The terms of the COTS objective that know the classes of pairs."""

from functools import partial

import torch
from torch import Tensor

from cots.losses.class_contrast import class_contrast
from cots.losses.masked import IGNORED, masked_cross_entropy
from cots.models.class_head import ClassHead
from cots.objectives.encoded_rows import EncodedRows


def class_contrast_loss(encoded: EncodedRows, *, temperature: Tensor) -> Tensor:
    """Contrast by class between and within the modalities, over the pairs of the batch that have a class.

    A query is no candidate of its own; nor is, for an image, the same image beside another caption.
    """
    assert encoded.candidate_features is not None
    assert encoded.classes is not None
    (images, texts), classes = encoded.candidate_features, encoded.classes
    contrast = partial(
        class_contrast, classes=classes.rows, candidate_classes=classes.candidates, temperature=temperature
    )
    between = contrast(encoded.image, texts, excluded=None) + contrast(encoded.text, images, excluded=None)
    i2i = contrast(encoded.image, images, excluded=classes.same_image)
    t2t = contrast(encoded.text, texts, excluded=classes.own_pair)
    return classes.share * (between + i2i + t2t)


def classification_loss(encoded: EncodedRows, head: ClassHead | None) -> Tensor:
    """Mean cross-entropy of the class by image, by text and by both; pairs without a class add nothing."""
    assert head
    assert encoded.classes is not None
    targets = encoded.classes.rows.masked_fill(encoded.classes.rows < 0, IGNORED)
    losses = [
        masked_cross_entropy(logits, targets, num_masked=len(targets)) for logits in head(encoded.image, encoded.text)
    ]
    return encoded.classes.share * torch.stack(losses).mean()
