"""Number of threads that decode images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cots.container_limits import available_cores, available_memory

if TYPE_CHECKING:
    import torch

MAX_DECODE_THREADS = 8  # they compete with the training thread for the GIL
BYTES_PER_PIXEL = 16  # at the peak of decoding an untrusted image, measured; most of all a WebP with transparency


def num_decode_threads(device: torch.device) -> int:
    """How many threads decode stored images: one if the model is on the CPU, else this process's share of the cores.

    Source: docs/performance.md, "Loading".
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MAX_DECODE_THREADS, available_cores() // local_world_size()))


def num_untrusted_threads(max_pixels: int) -> int:
    """How many threads decode untrusted images: one per core, but no more than half of the memory is enough for.

    Args:
        max_pixels: of an image; all threads may get one of this size at a time.
    """
    return max(1, min(available_cores(), available_memory() // 2 // (BYTES_PER_PIXEL * max_pixels)))


def local_world_size() -> int:
    """How many processes of this run are on this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
