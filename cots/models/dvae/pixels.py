"""Image bytes to the input of the dVAE."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_pixels(batch: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Bytes (B, H, W, 3) to (B, 3, H, W) in [0, 1], channels last in memory."""
    scaled = torch.from_numpy(batch).to(device).movedim(-1, 1).float().div_(255)
    return scaled.contiguous(memory_format=torch.channels_last)
