"""Number of threads that decode images."""

import os

import torch

MAX_DECODE_THREADS = 8  # they share the GIL with the training thread


def num_decode_threads(device: torch.device) -> int:
    """Number of threads that decode images: one if the model is on the CPU, else this process's share of the cores.

    Source: docs/performance.md, loading.
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MAX_DECODE_THREADS, len(os.sched_getaffinity(0)) // local_world_size()))


def local_world_size() -> int:
    """Number of processes on this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
