"""Set-up of the process group of torchrun, or of another launcher that sets the same variables."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as td

PROCESS_GROUP_TIMEOUT = timedelta(minutes=30)  # the others wait while rank 0 writes checkpoints and images
SHARDS_TIMEOUT = timedelta(days=2)  # ranks with quick shards wait at the end for one with slow ones


@contextmanager
def init_distributed(*, timeout: timedelta = PROCESS_GROUP_TIMEOUT, needs_accelerator: bool = True) -> Iterator[None]:
    """Initialize the process group if this process is one of several, by RANK, and destroy it at the end.

    Args:
        timeout: how long a rank waits for the others before it fails. torchrun ends all ranks at once if one has died.
        needs_accelerator: False if the work is for the processor alone: more processes than GPUs may share it then.
    """
    if "RANK" not in os.environ:
        yield
        return
    accelerated = needs_accelerator and torch.accelerator.is_available()
    if accelerated:
        # Ray, and Slurm with --gpus-per-task, show each process its own device only.
        own = torch.accelerator.device_count() == 1
        torch.accelerator.set_device_index(0 if own else int(os.environ["LOCAL_RANK"]))
    td.init_process_group("nccl" if accelerated else "gloo", timeout=timeout)
    try:
        yield
    finally:
        td.destroy_process_group()
