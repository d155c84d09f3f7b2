"""FSDP with SigLIP, whose pooling layer runs after the backbone's own pass."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from cots.models.two_tower.loading import load_two_tower
from cots.training.fsdp import apply_fsdp
from tests.two_towers import KINDS, SIZE


def compare(rank: int, folder: str) -> None:
    """One of two processes: the sharded encoder has the vectors and the gradients of the whole one."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    model, images = load_two_tower(f"{folder}/theirs"), torch.randn(2, 1, 3, SIZE, SIZE)
    with torch.no_grad():
        whole = model.image(images)
    apply_fsdp(nn.ModuleDict({"image": model.image, "text": model.text}))
    sharded = model.image(images)
    torch.testing.assert_close(sharded.detach(), whole)
    sharded[:, 0].sum().backward()
    assert [name for name, p in model.image.named_parameters() if p.grad is None] == ["backbone.mask_token"]
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_attention_pooling_is_sharded_on_its_own(
    tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode(fork_python))
    KINDS["transformers SigLIP"](tmp_path / "theirs")
    multiprocessing.spawn(compare, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
