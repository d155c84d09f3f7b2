"""Queue and momentum encoder: what is updated, and what stays."""

import pytest
import torch
from torch import nn

from cots.losses.contrastive import same_image_mask
from cots.models.momentum import MomentumEncoder
from cots.models.queue import PairQueue


def numbered(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.arange(first, first + count)
    return ids[:, None].float().repeat(1, 3), -ids[:, None].float().repeat(1, 3), ids


@pytest.mark.parametrize("sizes", [[1], [4], [3, 3], [4, 1, 2], [9], [2, 9, 1], [4, 4, 4]])
def test_queue_keeps_the_newest_pairs_whatever_the_batch_sizes(sizes: list[int]) -> None:
    queue, pushed = PairQueue(size=4, dim=3, warmup_steps=0), 0
    for size in sizes:
        queue.enqueue(*numbered(pushed, size))
        pushed += size
    newest = set(range(max(0, pushed - 4), pushed))
    assert {int(row[0]) for row in queue.images} == newest
    assert len(queue.images) == len(queue.texts) == min(pushed, 4)


def test_both_modalities_hold_the_same_pair_in_the_same_row() -> None:
    queue = PairQueue(size=5, dim=3, warmup_steps=0)
    for size in (3, 4, 2):
        queue.enqueue(*numbered(int(queue.count) * 10, size))
        torch.testing.assert_close(queue.images, -queue.texts)


def test_an_empty_queue_offers_no_negatives() -> None:
    queue = PairQueue(size=5, dim=3, warmup_steps=0)
    assert queue.images.shape == (0, 3)
    assert queue.image_index.shape == (0,)


def test_a_queue_of_no_rows_stays_empty() -> None:
    queue = PairQueue(size=0, dim=3, warmup_steps=0)
    queue.enqueue(*numbered(0, 3))
    assert queue.images.shape == (0, 3)


def test_rows_of_the_same_sample_are_found() -> None:
    queue = PairQueue(size=5, dim=3, warmup_steps=0)
    queue.enqueue(*numbered(10, 3))
    assert same_image_mask(torch.tensor([11, 7]), queue.image_index).tolist() == [
        [False, True, False],
        [False, False, False],
    ]


def test_momentum_encoder_follows_by_the_stated_share_and_copies_buffers() -> None:
    source = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    slow = MomentumEncoder(source)
    before = [p.clone() for p in slow.parameters()]
    source(torch.randn(8, 3)).sum().backward()
    with torch.no_grad():
        for p in source.parameters():
            p.add_(1.0)
    slow.update(source, 0.9)
    for was, now, fast in zip(before, slow.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * was + 0.1 * fast)
    for mine, theirs in zip(slow.module.buffers(), source.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_momentum_encoder_ignores_train_and_needs_no_gradient() -> None:
    slow = MomentumEncoder(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))).train()
    inputs = torch.randn(4, 3)
    assert torch.equal(slow(inputs), slow(inputs))
    assert not any(p.requires_grad for p in slow.parameters())
    assert not slow(inputs).requires_grad


def test_momentum_encoder_refuses_another_architecture() -> None:
    with pytest.raises(AssertionError, match="cannot follow"):
        MomentumEncoder(nn.Linear(3, 3)).update(nn.Linear(3, 3, bias=False), 0.9)


def test_queue_takes_nothing_in_while_it_warms_up() -> None:
    queue = PairQueue(size=5, dim=3, warmup_steps=2)
    for size in (3, 4, 2):
        queue.enqueue(*numbered(0, size))
    assert len(queue.images) == 2
