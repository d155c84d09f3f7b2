"""The three levels and the filter, against closed forms and slow references, in float64."""

import math

import pytest
import torch
from torch import Tensor

from cots.losses.alignment import symmetric_kl
from cots.losses.class_contrast import class_contrast
from cots.losses.contrastive import contrastive_logits, info_nce
from cots.losses.filter import AdaptiveMomentumFilter, keep_at_least
from cots.losses.masked import masked_cross_entropy

SIZES = [(1, 0), (1, 1), (2, 7), (5, 3), (17, 16)]


def unit_rows(count: int, dim: int, seed: int) -> Tensor:
    rows = torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows)


def slow_logits(
    query: Tensor, key: Tensor, queue: Tensor, ignore_mask: Tensor, temperature: float
) -> list[list[float]]:
    rows = []
    candidates = [*key, *queue]
    for i in range(len(query)):
        similarity = [float(query[i] @ candidate) / temperature for candidate in candidates]
        rows.append([-math.inf if ignore_mask[i, j] else value for j, value in enumerate(similarity)])
    return rows


def random_ignore_mask(batch: int, queue_size: int) -> Tensor:
    """A third of the candidates at random, never the positive."""
    ignore_mask = torch.rand(batch, batch + queue_size, generator=torch.Generator().manual_seed(3)) < 0.3
    ignore_mask[:, :batch].fill_diagonal_(False)
    return ignore_mask


def slow_softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(("batch", "queue_size"), SIZES)
def test_info_nce_agrees_with_loops(batch: int, queue_size: int) -> None:
    query, key, queue = unit_rows(batch, 8, 0), unit_rows(batch, 8, 1), unit_rows(queue_size, 8, 2)
    ignore_mask = random_ignore_mask(batch, queue_size)
    logits = contrastive_logits(query, key, queue, ignore_mask=ignore_mask, temperature=0.07)
    slow = [-math.log(slow_softmax(row)[i]) for i, row in enumerate(slow_logits(query, key, queue, ignore_mask, 0.07))]
    assert float(info_nce(logits, torch.arange(batch))) == pytest.approx(sum(slow) / batch, rel=1e-12, abs=1e-12)


def test_uniform_logits_cost_log_of_the_number_of_candidates() -> None:
    assert float(info_nce(torch.zeros(3, 11), torch.arange(3))) == pytest.approx(math.log(11), rel=1e-6)
    assert float(masked_cross_entropy(torch.zeros(4, 256), torch.arange(4), num_masked=4)) == pytest.approx(
        math.log(256), rel=1e-6
    )


def test_rows_of_the_same_image_are_no_negatives_of_it() -> None:
    query, key, queue = unit_rows(2, 8, 0), unit_rows(2, 8, 1), unit_rows(3, 8, 2)
    ignore_mask = torch.zeros(2, 5, dtype=torch.bool)
    ignore_mask[0, 2] = True
    logits = contrastive_logits(query, key, queue, ignore_mask=ignore_mask, temperature=0.1)
    without = contrastive_logits(query, key, queue[1:], ignore_mask=ignore_mask[:, 1:] & False, temperature=0.1)
    torch.testing.assert_close(logits[0].softmax(0)[[0, 1, 3, 4]], without[0].softmax(0), rtol=1e-12, atol=1e-12)


def test_with_the_batch_ignored_the_logits_are_those_of_moco() -> None:
    query, key, queue = unit_rows(3, 8, 0), unit_rows(3, 8, 1), unit_rows(4, 8, 2)
    ignore_mask = torch.cat([~torch.eye(3, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    loss = info_nce(contrastive_logits(query, key, queue, ignore_mask=ignore_mask, temperature=0.07), torch.arange(3))
    moco = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / 0.07
    torch.testing.assert_close(loss, -moco.log_softmax(1)[:, 0].mean(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("batch", "queue_size"), SIZES)
def test_kl_agrees_with_loops_and_ignored_columns_add_nothing(batch: int, queue_size: int) -> None:
    ignore_mask = random_ignore_mask(batch, queue_size)
    sides = []
    for seed in (0, 10):
        query, key, queue = unit_rows(batch, 8, seed), unit_rows(batch, 8, seed + 1), unit_rows(queue_size, 8, seed + 2)
        fast = contrastive_logits(query, key, queue, ignore_mask=ignore_mask, temperature=0.2)
        sides.append((fast, [slow_softmax(row) for row in slow_logits(query, key, queue, ignore_mask, 0.2)]))
    slow = 0.0
    for a, b in zip(sides[0][1], sides[1][1], strict=True):
        slow += sum((p - q) * math.log(p / q) for p, q in zip(a, b, strict=True) if p > 0 and q > 0) / 2
    assert float(symmetric_kl(sides[0][0], sides[1][0])) == pytest.approx(slow / batch, rel=1e-10, abs=1e-12)


def test_kl_is_zero_for_equal_rankings_and_unchanged_by_a_constant_shift_and_by_swapping() -> None:
    a, b = torch.randn(4, 9, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    assert float(symmetric_kl(a, a + 3)) == pytest.approx(0, abs=1e-12)
    assert float(symmetric_kl(a + 2, b - 5)) == pytest.approx(float(symmetric_kl(a, b)), rel=1e-10)
    assert float(symmetric_kl(a, b)) == pytest.approx(float(symmetric_kl(b, a)), rel=1e-10)
    assert float(symmetric_kl(a, b)) > 0


def test_gradient_of_the_kl_reaches_both_directions() -> None:
    a, b = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9, requires_grad=True)
    symmetric_kl(a, b).backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.abs().sum() > 0
    assert b.grad.abs().sum() > 0


def test_nothing_masked_costs_nothing_and_still_backpropagates() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.zeros(0, dtype=torch.long), num_masked=0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0


def test_filter_statistics_agree_with_weighted_sums_over_all_steps() -> None:
    noise = AdaptiveMomentumFilter(warmup_steps=0, num_std=2.0, momentum=0.9)
    steps = [torch.randn(size, dtype=torch.float64) for size in (1, 7, 16, 3)]
    for similarity in steps:
        noise.update(similarity)
    weights = [0.1 * 0.9 ** (len(steps) - 1 - i) for i in range(len(steps))]
    mean = sum(w * float(s.mean()) for w, s in zip(weights, steps, strict=True)) / sum(weights)
    second = sum(w * float((s**2).mean()) for w, s in zip(weights, steps, strict=True)) / sum(weights)
    assert noise.mean == pytest.approx(mean, rel=1e-12)
    assert noise.std == pytest.approx(math.sqrt(second - mean**2), rel=1e-9)
    assert noise.threshold == pytest.approx(noise.mean - 2 * noise.std)


def test_filter_drops_the_outlier_and_only_after_its_warm_up() -> None:
    noise = AdaptiveMomentumFilter(warmup_steps=2, num_std=2.0, momentum=0.5)
    usual, outlier = torch.tensor([0.7, 0.72, 0.68, 0.71]), torch.tensor([0.7, -0.5])
    noise.update(usual)
    assert noise.keep_mask(outlier).tolist() == [True, True]
    noise.update(usual)
    assert noise.keep_mask(outlier).tolist() == [True, False]


def test_filter_never_drops_a_whole_batch() -> None:
    noise = AdaptiveMomentumFilter(warmup_steps=0, num_std=1.0, momentum=0.0)
    noise.update(torch.tensor([0.8, 0.9]))
    assert noise.keep_mask(torch.tensor([-1.0, -0.9])).all()


@pytest.mark.parametrize(
    ("least", "expected"),
    [(0, [0, 1, 0, 0, 0, 0, 0]), (1, [0, 1, 0, 0, 0, 1, 0]), (2, [1, 1, 0, 0, 1, 1, 0]), (4, [1, 1, 1, 1, 1, 1, 1])],
)
def test_a_rank_keeps_its_most_similar_pairs_if_the_filter_leaves_too_few(
    least: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cots.losses.filter.rank_slices", lambda count: [slice(0, 3), slice(3, count)])
    kept = torch.tensor([False, True, False, False, False, False, False])
    similarity = torch.tensor([0.2, -0.5, 0.1, 0.0, 0.3, 0.9, 0.1])
    assert keep_at_least(kept, similarity, min_kept=least).int().tolist() == expected
    assert kept.int().tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_reading_the_filter_changes_nothing() -> None:
    noise = AdaptiveMomentumFilter(warmup_steps=0, num_std=2.0, momentum=0.9)
    noise.update(torch.randn(8))
    before = {name: value.clone() for name, value in noise.state_dict().items()}
    noise.keep_mask(torch.randn(8))
    assert all(torch.equal(before[name], value) for name, value in noise.state_dict().items())


def test_the_first_batch_is_kept_even_without_a_warm_up() -> None:
    noise = AdaptiveMomentumFilter(warmup_steps=0, num_std=2.0, momentum=0.9)
    assert noise.keep_mask(torch.tensor([-0.3, -0.1, 0.05, 0.2])).all()


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_contrast_by_class_has_its_closed_forms(rows: int) -> None:
    classes = torch.arange(rows) % 3
    same = torch.ones(rows, 4, dtype=torch.float64) / 2
    assert float(contrast_of(same, same, classes)) == pytest.approx(math.log(rows))  # uniform logits
    corners = torch.eye(3, dtype=torch.float64)[classes]
    alike = [int((classes == number).sum()) for number in classes.tolist()]
    apart = contrast_of(corners, corners, classes, temperature=0.01)
    assert float(apart) == pytest.approx(sum(math.log(count) for count in alike) / rows, abs=1e-9)


def test_contrast_by_class_knows_neither_the_order_nor_the_numbers_of_the_classes() -> None:
    queries, candidates, classes = unit_rows(7, 8, 0), unit_rows(7, 8, 1), torch.tensor([0, 1, 0, 2, -1, 1, 0])
    renamed = torch.tensor([5, 3, 5, 0, -1, 3, 5])
    excluded = torch.eye(7, dtype=torch.bool)
    loss = contrast_of(queries, candidates, classes, excluded=excluded)
    assert contrast_of(queries, candidates, renamed, excluded=excluded) == loss
    order = torch.tensor([3, 0, 6, 2, 1, 5, 4])
    moved = contrast_of(queries[order], candidates[order], classes[order], excluded=excluded[order][:, order])
    torch.testing.assert_close(moved, loss)


def contrast_of(
    queries: Tensor,
    candidates: Tensor,
    classes: Tensor,
    *,
    excluded: Tensor | None = None,
    temperature: float = 0.2,
) -> Tensor:
    return class_contrast(
        queries,
        candidates,
        classes=classes,
        candidate_classes=classes,
        excluded=excluded,
        temperature=temperature,
    )
