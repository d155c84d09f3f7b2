"""Which index is chosen for a gallery, and that it finds what it was asked for."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index import auto_index as choice
from cots.index.auto_index import choose_index, recall_of
from cots.index.embedding_index import EmbeddingIndex

Rows = NDArray[np.float32]
MEBIBYTE = 2**20


def gallery(count: int, *, dim: int = 32, seed: int = 0) -> tuple[Rows, Rows, Rows]:
    """Unit rows around 50 centres, as embeddings lie; 200 queries near some of them, and 200 more."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(50, dim))
    rows = unit(centres[rng.integers(50, size=count)] + 0.6 * rng.normal(size=(count, dim)))
    near = unit(rows[rng.integers(count, size=400)] + 0.1 * rng.normal(size=(400, dim)))
    return rows, near[:200], near[200:]


def unit(rows: NDArray[np.float64]) -> Rows:
    made: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def share_found(found: NDArray[np.int64], nearest: NDArray[np.int64]) -> float:
    return float(np.mean([len({*mine} & {*theirs}) / len(mine) for mine, theirs in zip(found, nearest, strict=True)]))


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph from half a mebibyte on, so that a test need not index a million rows."""
    monkeypatch.setattr(choice, "EXACT_BYTES", MEBIBYTE // 2)


def test_a_small_gallery_is_searched_exactly() -> None:
    rows, asked, _ = gallery(500)
    made = choose_index(rows, asked, recall=0.5, k=10)
    assert (made.kind, made.settings) == ("Flat", "")


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("recall", [0.7, 0.95, 0.99])
def test_a_large_one_is_searched_by_a_graph_that_finds_enough_for_other_queries_too(recall: float) -> None:
    rows, asked, others = gallery(6_000)
    made = choose_index(rows, asked, recall=recall, k=10)
    assert made.kind == "HNSW16,SQfp16"
    nearest = EmbeddingIndex.build(rows, "Flat").search(others, 10)[1]
    assert share_found(made.index.search(others, 10)[1], nearest) >= recall


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_more_recall_takes_more_effort() -> None:
    rows, asked, _ = gallery(6_000, dim=64)
    efforts = [
        int(choose_index(rows, asked, recall=recall, k=10).settings.removeprefix("efSearch="))
        for recall in (0.5, 0.9, 0.995)
    ]
    assert efforts == sorted(efforts)
    assert efforts[0] < efforts[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_settings_and_bytes_outlive_a_file_and_hold_for_a_selection(tmp_path: Path) -> None:
    rows, asked, others = gallery(6_000)
    first, second = (choose_index(rows, asked, recall=0.9, k=10).index for _ in range(2))
    first.save(tmp_path / "first.faiss")
    second.save(tmp_path / "second.faiss")
    assert (tmp_path / "first.faiss").read_bytes() == (tmp_path / "second.faiss").read_bytes()
    loaded = EmbeddingIndex.load(tmp_path / "first.faiss")
    np.testing.assert_array_equal(loaded.search(others, 10)[1], first.search(others, 10)[1])
    assert (loaded.search(others, 10, id_filter=np.arange(6_000) % 3 == 0)[1] % 3 == 0).all()


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_memory_decides_how_vectors_are_kept() -> None:
    rows, asked, _ = gallery(6_000)
    assert choose_index(rows, asked, recall=0.5, k=10, max_bytes=1.4 * MEBIBYTE).kind == "HNSW16,SQfp16"
    assert choose_index(rows, asked, recall=0.5, k=10, max_bytes=1.1 * MEBIBYTE).kind == "HNSW16,SQ8"
    with pytest.raises(ValueError, match=r"no index of 0\.0001 GB finds 50%: the smallest form has 0\.00106"):
        choose_index(rows, asked, recall=0.5, k=10, max_bytes=1e5)


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_what_no_setting_finds_is_found_by_exact_search() -> None:
    rows, asked, _ = gallery(6_000)
    assert choose_index(rows, -asked, recall=1.0, k=10).kind == "Flat"  # codes of far vectors order them badly


@pytest.mark.usefixtures("small_limit")
def test_pictures_that_occur_twice_do_not_stand_in_the_way() -> None:
    rows, asked, _ = gallery(6_000)
    rows[::2] = rows[1::2]
    assert choose_index(rows, asked, recall=0.95, k=9).kind.startswith("HNSW")  # of the ninth's two either is found


def test_what_is_as_near_as_the_last_counts() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    queries, furthest = np.eye(4, dtype=np.float32)[:2], np.ones(2, np.float32)
    assert recall_of(np.array([[1], [2]]), vectors, queries, furthest) == 1
    assert recall_of(np.array([[0], [3]]), vectors, queries, furthest) == 0.5
    assert recall_of(np.array([[-1], [-1]]), vectors, queries, furthest) == 0
