"""Ranks and recalls against hand-written matrices, closed forms and a slow reference."""

import math

import numpy as np
import pytest

from cots.retrieval import metrics
from cots.retrieval.metrics import Direction, Floats, Ints

# Four pictures, two captions each; entry (i, j) is the similarity of picture i and caption j.
SIMILARITY = np.array(
    [
        [0.9, 0.1, 0.2, 0.3, 0.0, 0.4, 0.5, 0.6],
        [0.8, 0.2, 0.7, 0.1, 0.9, 0.3, 0.4, 0.5],
        [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.7, 0.8],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    ]
)
OWNERS = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def spaces(similarity: Floats) -> tuple[Floats, Floats]:
    """Items and texts whose products are the given matrix."""
    return np.eye(len(similarity)), similarity.T.copy()


def units(random: np.random.Generator, rows: int, dim: int) -> Floats:
    vectors = random.normal(size=(rows, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def slow_ranks(items: Floats, texts: Floats, owners: Ints) -> tuple[list[int], list[int]]:
    def rank(right: list[float], wrong: list[float]) -> int:
        return 1 + sum(value >= max(right) for value in wrong)

    table = [[float(np.dot(i.astype(float), t.astype(float))) for t in texts] for i in items]
    i2t = [
        rank(
            [v for v, o in zip(row, owners, strict=True) if o == n],
            [v for v, o in zip(row, owners, strict=True) if o != n],
        )
        for n, row in enumerate(table)
    ]
    t2i = [
        rank([table[o][j]], [row[j] for n, row in enumerate(table) if n != o]) for j, o in enumerate(owners.tolist())
    ]
    return i2t, t2i


def direction(ranks: list[int], candidates: int, relevant: int = 1) -> Direction:
    queries = np.arange(len(ranks))
    return Direction(np.array(ranks), queries, np.full(len(ranks), relevant), candidates)


def test_ranks_of_a_hand_written_matrix() -> None:
    i2t, t2i = metrics.retrieval(*spaces(SIMILARITY), OWNERS)
    assert i2t.ranks.tolist() == [1, 3, 7, 1]
    assert t2i.ranks.tolist() == [1, 4, 1, 4, 3, 4, 2, 2]
    assert metrics.scores(i2t) == {"R@1": 50, "R@5": 75, "R@10": 100, "MdR": 2, "mean_rank": 3}
    assert metrics.scores(t2i) == {"R@1": 25, "R@5": 100, "R@10": 100, "MdR": 2.5, "mean_rank": 21 / 8}
    assert metrics.rsum({"i2t": i2t, "t2i": t2i}) == 450


def test_a_perfect_model_reaches_an_rsum_of_600() -> None:
    items = np.eye(3)
    i2t, t2i = metrics.retrieval(items, items, np.arange(3))
    assert metrics.rsum({"i2t": i2t, "t2i": t2i}) == 600


@pytest.mark.parametrize(("pictures", "captions"), [(1, 1), (1, 5), (2, 1), (7, 3), (31, 5)])
@pytest.mark.parametrize("block", [1, 40, 1 << 22])
def test_ranks_equal_a_slow_reference_whatever_the_block(
    pictures: int, captions: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK", block)
    random = np.random.default_rng(pictures)
    owners = random.permutation(np.repeat(np.arange(pictures), captions))
    items, texts = units(random, pictures, 6), units(random, pictures * captions, 6)
    i2t, t2i = metrics.retrieval(items, texts, owners)
    assert (i2t.ranks.tolist(), t2i.ranks.tolist()) == slow_ranks(items, texts, owners)


def test_pictures_may_have_different_numbers_of_captions() -> None:
    random = np.random.default_rng(3)
    owners = np.array([2, 0, 1, 1, 1, 2, 2, 2, 2])
    items, texts = units(random, 3, 4), units(random, 9, 4)
    i2t, t2i = metrics.retrieval(items, texts, owners)
    assert (i2t.ranks.tolist(), t2i.ranks.tolist()) == slow_ranks(items, texts, owners)
    assert i2t.relevant.tolist() == [1, 3, 5]


def test_a_collapsed_model_comes_last_not_first() -> None:
    collapsed = np.tile(units(np.random.default_rng(0), 1, 128), (40, 1))
    i2t, t2i = metrics.retrieval(collapsed, np.repeat(collapsed, 5, axis=0), np.repeat(np.arange(40), 5))
    assert set(i2t.ranks) == {1 + 200 - 5}
    assert set(t2i.ranks) == {40}


def test_a_duplicate_of_the_right_picture_counts_against_the_model() -> None:
    random = np.random.default_rng(1)
    items = units(random, 20, 32)
    items[11] = items[4]
    _, t2i = metrics.retrieval(items, items.copy(), np.arange(20))
    assert t2i.ranks[4] == t2i.ranks[11] == 2
    assert np.delete(t2i.ranks, [4, 11]).tolist() == [1] * 18


def test_the_order_of_items_and_texts_changes_nothing() -> None:
    random = np.random.default_rng(2)
    owners = np.repeat(np.arange(12), 4)
    items, texts = units(random, 12, 8), units(random, 48, 8)
    i2t, t2i = metrics.retrieval(items, texts, owners)
    a, b = random.permutation(12), random.permutation(48)
    shuffled = metrics.retrieval(items[a], texts[b], np.argsort(a)[owners[b]])
    assert shuffled[0].ranks.tolist() == i2t.ranks[a].tolist()
    assert shuffled[1].ranks.tolist() == t2i.ranks[b].tolist()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_embedding_that_is_not_finite_is_named(broken: float) -> None:
    items, texts = np.eye(4), np.eye(4)
    texts[2, 1] = broken
    with pytest.raises(ValueError, match=r"1 text embedding\(s\) not finite, the first in row 2"):
        metrics.retrieval(items, texts, np.arange(4))


@pytest.mark.parametrize("owners", [[0, 0, 1], [0, 1, 3], [0, 1, -1]])
def test_an_item_without_a_text_is_refused(owners: list[int]) -> None:
    with pytest.raises(ValueError, match="every one of the 3 items"):
        metrics.retrieval(np.eye(3), np.eye(3), np.array(owners))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes do not fit"):
        metrics.retrieval(np.eye(3), np.eye(4), np.arange(4))


def test_chance_with_one_right_candidate_is_k_of_n() -> None:
    expected = metrics.chance(direction([1], candidates=500))
    assert expected == pytest.approx({"R@1": 0.2, "R@5": 1, "R@10": 2, "MdR": 250.5, "mean_rank": 250.5})


def test_chance_with_several_right_candidates_is_hypergeometric() -> None:
    expected = metrics.chance(direction([1], candidates=25, relevant=5))
    for k in metrics.KS:
        assert expected[f"R@{k}"] == pytest.approx(100 * (1 - math.comb(20, k) / math.comb(25, k)))
    assert expected["mean_rank"] == pytest.approx(26 / 6)


def test_chance_is_certain_where_everything_is_among_the_first() -> None:
    assert metrics.chance(direction([1], candidates=1)) == {
        "R@1": 100,
        "R@5": 100,
        "R@10": 100,
        "MdR": 1,
        "mean_rank": 1,
    }
    assert metrics.chance(direction([1], candidates=9, relevant=5))["R@5"] == pytest.approx(100)


def test_random_embeddings_score_at_chance() -> None:
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(200), 5)
    runs = [metrics.retrieval(units(random, 200, 64), units(random, 1000, 64), owners) for _ in range(12)]
    for number in (0, 1):
        found = {
            name: np.mean([metrics.scores(run[number])[name] for run in runs]) for name in ("R@10", "MdR", "mean_rank")
        }
        expected = metrics.chance(runs[0][number])
        assert found["R@10"] == pytest.approx(expected["R@10"], rel=0.15)
        assert found["MdR"] == pytest.approx(expected["MdR"], rel=0.1)
        assert found["mean_rank"] == pytest.approx(expected["mean_rank"], rel=0.1)


def test_intervals_hold_the_score_and_agree_with_the_binomial_one() -> None:
    random = np.random.default_rng(0)
    ranks = random.integers(1, 21, size=400).tolist()
    ways = {"i2t": direction(ranks, 400), "t2i": direction(ranks, 400)}
    intervals = metrics.bootstrap(ways, resamples=2000, seed=1)
    share = metrics.recall_at_k(np.array(ranks), 10)
    half = 1.96 * math.sqrt(share * (100 - share) / 400)
    assert intervals["i2t R@10"]["low"] == pytest.approx(share - half, abs=0.7)
    assert intervals["i2t R@10"]["high"] == pytest.approx(share + half, abs=0.7)
    assert intervals["t2i MdR"]["low"] <= metrics.median_rank(np.array(ranks)) <= intervals["t2i MdR"]["high"]
    assert intervals["rsum"]["low"] < metrics.rsum(ways) < intervals["rsum"]["high"]


def test_captions_of_one_picture_are_no_independent_evidence() -> None:
    random = np.random.default_rng(0)
    of_pictures = random.integers(1, 3, size=100)
    alone = direction(of_pictures.tolist(), 100)
    owners = np.repeat(np.arange(100), 5)
    repeated = Direction(np.repeat(of_pictures, 5), owners, np.ones(500, np.int64), 100)
    wide, narrow = (metrics.bootstrap({"t2i": way}, resamples=300, seed=0) for way in (alone, repeated))
    assert {name: pytest.approx(interval) for name, interval in wide.items()} == narrow


def test_intervals_repeat_with_their_seed() -> None:
    ways = {"t2i": direction([1, 2, 30, 4, 7, 11], 40)}
    first = metrics.bootstrap(ways, resamples=50, seed=5)
    assert first == metrics.bootstrap(ways, resamples=50, seed=5)
    assert first != metrics.bootstrap(ways, resamples=50, seed=6)


def test_one_query_has_an_interval_of_no_width() -> None:
    assert metrics.bootstrap({"t2i": direction([3], 9)}, resamples=9, seed=0)["t2i R@5"] == {"low": 100, "high": 100}
