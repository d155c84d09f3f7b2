"""Joining the processes that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as td

PROCESS_GROUP_TIMEOUT = timedelta(minutes=30)  # for the slowest process: the first one writes checkpoints and pictures


@contextmanager
def init_distributed() -> Iterator[None]:
    """Join the other processes that `torchrun` started, and leave them at the end."""
    if "RANK" not in os.environ:
        yield
        return
    accelerated = torch.accelerator.is_available()
    if accelerated:
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    td.init_process_group("nccl" if accelerated else "gloo", timeout=PROCESS_GROUP_TIMEOUT)
    try:
        yield
    finally:
        td.destroy_process_group()
