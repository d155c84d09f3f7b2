"""Image bytes to normalized floats."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def normalize_pixels(
    pixels: NDArray[np.uint8], *, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Tensor:
    """Bytes (..., H, W, 3) to floats (..., 3, H, W): (x / 255 - mean) / std by channel."""
    scaled = torch.from_numpy(pixels).to(device).float().div_(255)
    return (
        ((scaled - torch.tensor(mean, device=device)) / torch.tensor(std, device=device)).movedim(-1, -3).contiguous()
    )
