"""Ranks and metrics against hand-written matrices, closed forms and a slow reference."""

import itertools
import math

import numpy as np
import pytest

from cots.evaluation import metric_table, metrics
from cots.evaluation.metrics import Floats, Ints, RankedQueries

# Four images with two captions each; entry (i, j) is the similarity of image i and caption j.
SIMILARITY = np.array(
    [
        [0.9, 0.1, 0.2, 0.3, 0.0, 0.4, 0.5, 0.6],
        [0.8, 0.2, 0.7, 0.1, 0.9, 0.3, 0.4, 0.5],
        [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.7, 0.8],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    ]
)
TEXT_TO_ITEM = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def embeddings_with(similarity: Floats) -> tuple[Floats, Floats]:
    """Items and texts whose products are the given matrix."""
    return np.eye(len(similarity)), similarity.T.copy()


def unit_rows(random: np.random.Generator, rows: int, dim: int) -> Floats:
    vectors = random.normal(size=(rows, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def slow_reference(items: Floats, texts: Floats, text_to_item: Ints) -> tuple[list[float], list[float]]:
    """Ranks of all right candidates, then AP@R, of every query, as a flat list for each direction: loops and a sort."""

    def score(similarity: list[float], right: list[bool]) -> list[float]:
        order = sorted(range(len(right)), key=lambda row: (-similarity[row], right[row]))  # of ties, wrong ones first
        hits = [right[row] for row in order]
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        precision = [sum(hits[:rank]) / rank for rank in ranks if rank <= len(ranks)]
        return [*ranks, sum(precision) / len(ranks)]

    table = [[sum(a * b for a, b in zip(i.tolist(), t.tolist(), strict=True)) for t in texts] for i in items]
    i2t = [score(row, [item == n for item in text_to_item]) for n, row in enumerate(table)]
    t2i = [score([row[j] for row in table], [n == i for n in range(len(table))]) for j, i in enumerate(text_to_item)]
    return list(itertools.chain(*i2t)), list(itertools.chain(*t2i))


def flat(queries: RankedQueries) -> list[float]:
    """What `slow_reference` returns of one direction."""
    assert queries.right_ranks is not None
    by_query = np.split(queries.right_ranks, np.cumsum(queries.relevant)[:-1])
    assert [ranks[0] for ranks in by_query] == queries.ranks.tolist()
    precisions = queries.average_precision.tolist()
    return [value for ranks, precision in zip(by_query, precisions, strict=True) for value in [*ranks, precision]]


def ranked(ranks: list[int], candidates: int, relevant: int = 1) -> RankedQueries:
    queries = np.arange(len(ranks))
    return RankedQueries(np.array(ranks), queries, np.full(len(ranks), relevant), candidates, 1.0 / np.array(ranks))


def test_ranks_of_a_hand_written_matrix() -> None:
    i2t, t2i = metrics.rank_queries(*embeddings_with(SIMILARITY), TEXT_TO_ITEM)
    assert i2t.ranks.tolist() == [1, 3, 7, 1]
    assert t2i.ranks.tolist() == [1, 4, 1, 4, 3, 4, 2, 2]
    assert i2t.average_precision.tolist() == [0.5, 0, 0, 1]
    assert metric_table.summarize(i2t) == {"R@1": 50, "R@5": 75, "R@10": 100, "mAP@R": 37.5, "MdR": 2, "mean_rank": 3}
    assert metric_table.summarize(t2i) == {
        "R@1": 25,
        "R@5": 100,
        "R@10": 100,
        "mAP@R": 25,
        "MdR": 2.5,
        "mean_rank": 21 / 8,
    }
    assert metric_table.rsum({"i2t": i2t, "t2i": t2i}) == 450


def test_a_perfect_model_reaches_an_rsum_of_600() -> None:
    items = np.eye(3)
    i2t, t2i = metrics.rank_queries(items, items, np.arange(3))
    assert metric_table.rsum({"i2t": i2t, "t2i": t2i}) == 600


@pytest.mark.parametrize("counts", [[1], [5], [1, 1], [3] * 7, [5] * 31, [4, 1, 9, 2], [1, 60]])
@pytest.mark.parametrize("block", [1, 40, 1 << 22])
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_and_precision_are_those_of_a_slow_reference_for_any_block_size(
    counts: list[int], block: int, ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK", block)
    random = np.random.default_rng(len(counts))
    text_to_item = random.permutation(np.repeat(np.arange(len(counts)), counts))
    draw = (lambda n: random.integers(-1, 2, (n, 3)).astype(float)) if ties else (lambda n: unit_rows(random, n, 6))
    items, texts = draw(len(counts)), draw(len(text_to_item))
    i2t, t2i = metrics.rank_queries(items, texts, text_to_item)
    expected = slow_reference(items, texts, text_to_item)
    assert flat(i2t) == pytest.approx(expected[0])
    assert flat(t2i) == pytest.approx(expected[1])
    assert i2t.relevant.tolist() == counts
    assert set(t2i.relevant) == {1}


def test_with_one_right_candidate_map_at_r_is_recall_at_1() -> None:
    random = np.random.default_rng(0)
    for queries in metrics.rank_queries(unit_rows(random, 40, 3), unit_rows(random, 40, 3), np.arange(40)):
        scores = metric_table.summarize(queries)
        assert 0 < scores["mAP@R"] < 100
        assert scores["mAP@R"] == pytest.approx(scores["R@1"])


def test_map_at_r_needs_all_captions_first_and_recall_needs_one() -> None:
    similarity = np.array([[1.0, 0.8, 0.2, 0.9], [0.0, 0.1, 0.7, 0.6]])
    i2t, _ = metrics.rank_queries(*embeddings_with(similarity), np.array([0, 0, 0, 1]))
    assert i2t.ranks[0] == 1
    assert i2t.average_precision[0] == pytest.approx((1 + 2 / 3) / 3)  # right, wrong, right | right


def test_a_collapsed_model_ranks_last_not_first() -> None:
    collapsed = np.tile(unit_rows(np.random.default_rng(0), 1, 128), (40, 1))
    i2t, t2i = metrics.rank_queries(collapsed, np.repeat(collapsed, 5, axis=0), np.repeat(np.arange(40), 5))
    assert set(i2t.ranks) == {1 + 200 - 5}
    assert set(t2i.ranks) == {40}
    assert metric_table.summarize(i2t)["mAP@R"] == metric_table.summarize(t2i)["mAP@R"] == 0


def test_a_duplicate_of_the_right_image_counts_against_the_model() -> None:
    random = np.random.default_rng(1)
    items = unit_rows(random, 20, 32)
    items[11] = items[4]
    _, t2i = metrics.rank_queries(items, items.copy(), np.arange(20))
    assert t2i.ranks[4] == t2i.ranks[11] == 2
    assert np.delete(t2i.ranks, [4, 11]).tolist() == [1] * 18


def test_the_order_of_items_and_texts_changes_nothing() -> None:
    random = np.random.default_rng(2)
    text_to_item = np.repeat(np.arange(12), 4)
    items, texts = unit_rows(random, 12, 8), unit_rows(random, 48, 8)
    i2t, t2i = metrics.rank_queries(items, texts, text_to_item)
    a, b = random.permutation(12), random.permutation(48)
    shuffled = metrics.rank_queries(items[a], texts[b], np.argsort(a)[text_to_item[b]])
    assert shuffled[0].ranks.tolist() == i2t.ranks[a].tolist()
    assert shuffled[0].average_precision == pytest.approx(i2t.average_precision[a])
    assert shuffled[1].ranks.tolist() == t2i.ranks[b].tolist()


@pytest.mark.parametrize(("images", "folds"), [(6, 1), (6, 2), (7, 3), (5, 5)])
def test_a_fold_is_ranked_among_its_own_images_and_captions(images: int, folds: int) -> None:
    random = np.random.default_rng(folds)
    text_to_item = random.permutation(np.repeat(np.arange(images), 3))
    items, texts = unit_rows(random, images, 4), unit_rows(random, 3 * images, 4)
    by_fold = metrics.rank_queries_in_folds(items, texts, text_to_item, folds)
    members = np.split(np.arange(images), np.arange(1, folds) * images // folds)
    assert len(by_fold) == folds
    for directions, fold in zip(by_fold, members, strict=True):
        in_fold = np.isin(text_to_item, fold)
        expected = slow_reference(items[fold], texts[in_fold], text_to_item[in_fold] - fold[0])
        assert [flat(queries) for queries in directions] == [pytest.approx(values) for values in expected]
        assert (directions[0].candidates, directions[1].candidates) == (3 * len(fold), len(fold))
        assert abs(len(fold) - images / folds) < 1


@pytest.mark.parametrize("folds", [0, 5])
def test_more_folds_than_items_are_refused(folds: int) -> None:
    with pytest.raises(ValueError, match=f"4 items cannot be split into {folds} folds"):
        metrics.rank_queries_in_folds(np.eye(4), np.eye(4), np.arange(4), folds)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_embedding_that_is_not_finite_is_named(broken: float) -> None:
    items, texts = np.eye(4), np.eye(4)
    texts[2, 1] = broken
    with pytest.raises(ValueError, match=r"1 text embedding\(s\) not finite, the first in row 2"):
        metrics.rank_queries(items, texts, np.arange(4))


@pytest.mark.parametrize("text_to_item", [[0, 0, 1], [0, 1, 3], [0, 1, -1]])
def test_an_item_without_a_text_is_refused(text_to_item: list[int]) -> None:
    with pytest.raises(ValueError, match="each of the 3 items"):
        metrics.rank_queries(np.eye(3), np.eye(3), np.array(text_to_item))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes do not fit"):
        metrics.rank_queries(np.eye(3), np.eye(4), np.arange(4))


def test_chance_with_one_right_candidate_is_k_of_n() -> None:
    expected = metric_table.chance_level(ranked([1], candidates=500))
    assert expected == pytest.approx({"R@1": 0.2, "R@5": 1, "R@10": 2, "mAP@R": 0.2, "MdR": 250.5, "mean_rank": 250.5})


def test_chance_with_several_right_candidates_is_hypergeometric() -> None:
    expected = metric_table.chance_level(ranked([1], candidates=25, relevant=5))
    for k in metrics.RECALL_KS:
        assert expected[f"R@{k}"] == pytest.approx(100 * (1 - math.comb(20, k) / math.comb(25, k)))
    assert expected["mean_rank"] == pytest.approx(26 / 6)


def test_chance_is_certain_where_everything_is_among_the_first() -> None:
    assert metric_table.chance_level(ranked([1], candidates=1)) == {
        "R@1": 100,
        "R@5": 100,
        "R@10": 100,
        "mAP@R": 100,
        "MdR": 1,
        "mean_rank": 1,
    }
    assert metric_table.chance_level(ranked([1], candidates=9, relevant=5))["R@5"] == pytest.approx(100)


@pytest.mark.parametrize(("relevant", "candidates"), [(1, 1), (1, 6), (2, 2), (2, 5), (3, 6), (5, 6)])
def test_map_at_r_by_chance_is_the_mean_over_all_orders(relevant: int, candidates: int) -> None:
    total = orders = 0.0
    for places in itertools.combinations(range(candidates), relevant):
        hits = [place in places for place in range(relevant)]
        total += sum(sum(hits[: i + 1]) / (i + 1) for i in range(relevant) if hits[i]) / relevant
        orders += 1
    expected = metric_table.chance_level(ranked([1], candidates=candidates, relevant=relevant))
    assert expected["mAP@R"] == pytest.approx(100 * total / orders)


def test_random_embeddings_score_at_chance() -> None:
    random = np.random.default_rng(0)
    text_to_item = np.repeat(np.arange(200), 5)
    runs = [
        metrics.rank_queries(unit_rows(random, 200, 64), unit_rows(random, 1000, 64), text_to_item) for _ in range(12)
    ]
    for number in (0, 1):
        scores = {
            name: np.mean([metric_table.summarize(run[number])[name] for run in runs])
            for name in ("R@10", "mAP@R", "MdR", "mean_rank")
        }
        expected = metric_table.chance_level(runs[0][number])
        assert scores["R@10"] == pytest.approx(expected["R@10"], rel=0.15)
        assert scores["mAP@R"] == pytest.approx(expected["mAP@R"], rel=0.3)
        assert scores["MdR"] == pytest.approx(expected["MdR"], rel=0.1)
        assert scores["mean_rank"] == pytest.approx(expected["mean_rank"], rel=0.1)
