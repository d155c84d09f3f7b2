"""The order of samples with hard negatives: each sample once, groups of the right size, the same for a seed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cots.data.hard_negatives import NONE, SCHEMA, followed_by_nearest, read_hard_negatives
from cots.data.manifest import write_table
from cots.errors import BadInput


def order(nearest: dict[int, list[int]], *, share: float, window: int = 1000, seed: int = 0) -> list[int]:
    items = np.random.default_rng(1).permutation(len(nearest)).tolist()
    rng = np.random.default_rng(seed)
    return list(followed_by_nearest(items, nearest.__getitem__, int, share=share, window=window, rng=rng))


def ring(count: int) -> dict[int, list[int]]:
    """Each number is confused with the next one."""
    return {number: [(number + 1) % count] for number in range(count)}


def test_each_sample_comes_once_and_with_share_0_in_its_order() -> None:
    assert sorted(order(ring(500), share=0.7)) == list(range(500))
    assert order(ring(500), share=0) == np.random.default_rng(1).permutation(500).tolist()


def test_a_share_of_the_samples_is_followed_by_its_nearest() -> None:
    shuffled = order(ring(5000), share=0.5, window=5000)
    followed = sum(second == (first + 1) % 5000 for first, second in pairwise(shuffled))
    assert followed / 5000 == pytest.approx(
        0.33, abs=0.03
    )  # of those chosen, a third have lost theirs to an earlier group


def test_with_share_1_samples_that_are_confused_with_each_other_stay_together() -> None:
    groups = {number: [other for other in range(number - number % 4, number - number % 4 + 4)] for number in range(80)}
    shuffled = order(groups, share=1)
    assert all(len({number // 4 for number in shuffled[start : start + 4]}) == 1 for start in range(0, 80, 4))


def test_the_nearest_that_is_still_to_come_follows_and_none_beyond_the_window() -> None:
    nearest = {0: [3, 2, 1], 1: [], 2: [], 3: []}
    rng = np.random.default_rng(0)
    whole = followed_by_nearest([0, 1, 2, 3], nearest.__getitem__, int, share=1, window=4, rng=rng)
    assert list(whole) == [0, 3, 1, 2]
    halves = followed_by_nearest([0, 1, 2, 3], nearest.__getitem__, int, share=1, window=2, rng=rng)
    assert list(halves) == [0, 1, 2, 3]


def test_the_order_repeats_with_its_seed() -> None:
    first = order(ring(300), share=0.5, seed=1)
    assert first == order(ring(300), share=0.5, seed=1)
    assert first != order(ring(300), share=0.5, seed=2)


def test_a_table_is_read_by_id_and_what_the_manifest_lacks_is_left_out(tmp_path: Path) -> None:
    manifest = pd.DataFrame({"id": ["a", "b", "c"], "key": ["5", "7", "11"]})
    rows: list[dict[str, object]] = [
        {"id": "b", "nearest": ["gone", "c", "a"]},
        {"id": "gone", "nearest": ["a"]},
        {"id": "c", "nearest": ["a"]},
    ]
    write_table(tmp_path / "table.parquet", rows, SCHEMA)
    found = read_hard_negatives(tmp_path / "table.parquet", manifest)
    assert found.tolist() == [[NONE] * 3, [11, 5, NONE], [5, NONE, NONE]]


@pytest.mark.parametrize("content", [None, b"", b"PAR1"])
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "table.parquet").write_bytes(content)
    with pytest.raises(BadInput, match="write them with `cots hard-negatives`"):
        read_hard_negatives(tmp_path / "table.parquet", pd.DataFrame({"id": [], "key": []}))
