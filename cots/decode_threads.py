"""Number of threads that decode images."""

import os

import torch

MAX_DECODE_THREADS = 8  # they compete with the training thread for the GIL


def num_decode_threads(device: torch.device) -> int:
    """How many threads decode images: one if the model is on the CPU, else this process's share of the cores.

    Source: docs/performance.md, "Loading".
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MAX_DECODE_THREADS, len(os.sched_getaffinity(0)) // local_world_size()))


def local_world_size() -> int:
    """How many processes of this run are on this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
