"""How many threads decode images."""

import os

import torch

MAX_DECODE_THREADS = 8  # threads at most: they share Python's lock with the thread that trains


def num_decode_threads(device: torch.device) -> int:
    """How many threads decode pictures: one beside streams that compute on the same cores, else this process's cores.

    Source: docs/performance.md, loading.
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MAX_DECODE_THREADS, len(os.sched_getaffinity(0)) // local_world_size()))


def local_world_size() -> int:
    """How many processes share this machine, this one among them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
