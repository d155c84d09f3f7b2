"""The classification head: the class of a pair from the embedding of its image, of its text, or of both."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class ClassLogits(NamedTuple):
    """Logits over C classes, from one modality or from both."""

    image: Tensor  # (R, C)
    text: Tensor  # (R, C)
    both: Tensor  # (R, C)


class ClassHead(nn.Module):
    """One linear layer on each embedding; what one modality says adds to what the other says.

        logits = sqrt(D) (U f + V g) + b,      f, g unit rows; without a modality its term is left out

    sqrt(D) gives the coordinates of a unit row the variance 1 that a linear layer's initial weights expect.

    Args:
        dim: of the shared space (D).
        num_classes: to choose from (C).

    Source: VLCDoC, arXiv:2205.12029, has a classifier on each modality; their sum is this project's.
    """

    def __init__(self, *, dim: int, num_classes: int) -> None:
        super().__init__()
        self.image = nn.Linear(dim, num_classes, bias=False)
        self.text = nn.Linear(dim, num_classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.scale = dim**0.5

    def forward(self, image: Tensor, text: Tensor) -> ClassLogits:
        """Score the classes of pairs.

        Args:
            image: (R, D) unit rows, or zeros in place of images that are not given.
            text: (R, D) likewise.
        """
        by_image, by_text = self.image(self.scale * image), self.text(self.scale * text)
        return ClassLogits(by_image + self.bias, by_text + self.bias, by_image + by_text + self.bias)
