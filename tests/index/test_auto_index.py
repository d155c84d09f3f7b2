"""Which index is chosen for a gallery, and whether it reaches the recall."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index import auto_index
from cots.index.auto_index import choose_index, recall_of
from cots.index.embedding_file import EmbeddingFile
from cots.index.embedding_index import EmbeddingIndex

Rows = NDArray[np.float32]
MEBIBYTE = 2**20


def gallery(count: int, *, dim: int = 32, seed: int = 0) -> tuple[Rows, Rows, Rows]:
    """Unit rows in 50 clusters, like embeddings; 200 queries near some of them, and 200 more."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(50, dim))
    rows = normalize(centres[rng.integers(50, size=count)] + 0.6 * rng.normal(size=(count, dim)))
    queries = normalize(rows[rng.integers(count, size=400)] + 0.1 * rng.normal(size=(400, dim)))
    return rows, queries[:200], queries[200:]


def normalize(rows: NDArray[np.float64]) -> Rows:
    unit_rows: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit_rows


def overlap(rows: NDArray[np.int64], nearest: NDArray[np.int64]) -> float:
    return float(np.mean([len({*ours} & {*exact}) / len(ours) for ours, exact in zip(rows, nearest, strict=True)]))


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are used from half a mebibyte on, so that tests need not index a million rows."""
    monkeypatch.setattr(auto_index, "EXACT_BYTES", MEBIBYTE // 2)


def test_a_small_gallery_is_searched_exactly() -> None:
    rows, queries, _ = gallery(500)
    choice = choose_index(rows, queries, recall=0.5, k=10)
    assert (choice.factory, choice.settings) == ("Flat", "")


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("recall", [0.7, 0.95, 0.99])
def test_a_large_gallery_has_a_graph_that_reaches_the_recall_on_other_queries_too(recall: float) -> None:
    rows, queries, others = gallery(6_000)
    choice = choose_index(rows, queries, recall=recall, k=10)
    assert choice.factory == "HNSW16,SQfp16"
    nearest = EmbeddingIndex.build(rows, "Flat").search(others, 10)[1]
    assert overlap(choice.index.search(others, 10)[1], nearest) >= recall


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_higher_recall_needs_a_larger_ef_search() -> None:
    rows, queries, _ = gallery(6_000, dim=64)
    ef_search = [
        int(choose_index(rows, queries, recall=recall, k=10).settings.removeprefix("efSearch="))
        for recall in (0.5, 0.9, 0.995)
    ]
    assert ef_search == sorted(ef_search)
    assert ef_search[0] < ef_search[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_a_saved_index_has_the_same_bytes_and_settings_and_accepts_a_filter(tmp_path: Path) -> None:
    rows, queries, others = gallery(6_000)
    first, second = (choose_index(rows, queries, recall=0.9, k=10).index for _ in range(2))
    first.save(tmp_path / "first.faiss")
    second.save(tmp_path / "second.faiss")
    assert (tmp_path / "first.faiss").read_bytes() == (tmp_path / "second.faiss").read_bytes()
    loaded = EmbeddingIndex.load(tmp_path / "first.faiss")
    np.testing.assert_array_equal(loaded.search(others, 10)[1], first.search(others, 10)[1])
    assert (loaded.search(others, 10, id_filter=np.arange(6_000) % 3 == 0)[1] % 3 == 0).all()


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_memory_decides_the_format_of_vectors() -> None:
    rows, queries, _ = gallery(6_000)
    assert choose_index(rows, queries, recall=0.5, k=10, max_bytes=1.4 * MEBIBYTE).factory == "HNSW16,SQfp16"
    assert choose_index(rows, queries, recall=0.5, k=10, max_bytes=1.1 * MEBIBYTE).factory == "HNSW16,SQ8"
    assert choose_index(rows, queries, recall=0.5, k=10, max_bytes=1e5).factory == "IVF256,SQ8"
    with pytest.raises(ValueError, match=r"no index of 1e-05 GB finds 50%: the smallest one has 3\.28e-05 GB"):
        choose_index(rows, queries, recall=0.5, k=10, max_bytes=1e4)


@pytest.mark.slow
@pytest.mark.usefixtures("small_limit")
def test_exact_search_is_the_fallback_if_no_setting_reaches_the_recall() -> None:
    rows, queries, _ = gallery(6_000)
    assert (
        choose_index(rows, -queries, recall=1.0, k=10).factory == "Flat"
    )  # half precision orders distant vectors badly


@pytest.mark.usefixtures("small_limit")
def test_beyond_a_graph_lists_reach_the_recall_whether_vectors_are_an_array_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_index, "GRAPH_BYTES", MEBIBYTE // 2)
    monkeypatch.setattr("cots.index.embedding_file.BLOCK", 1_000)
    rows, queries, others = gallery(6_000)
    file = EmbeddingFile(32, tmp_path)
    file.append(rows)
    by_array, by_file = (choose_index(given, queries, recall=0.95, k=10, folder=tmp_path) for given in (rows, file))
    assert by_file.factory == by_array.factory == "IVF256,SQ8"
    assert by_file.settings == by_array.settings
    nearest = EmbeddingIndex.build(rows, "Flat").search(others, 10)[1]
    results = by_file.index.search(others, 10)[1]
    assert overlap(results, nearest) >= 0.95
    np.testing.assert_array_equal(by_array.index.search(others, 10)[1], results)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_limit")
def test_duplicate_images_do_not_count_against_a_graph() -> None:
    rows, queries, _ = gallery(6_000)
    rows[::2] = rows[1::2]
    assert choose_index(rows, queries, recall=0.95, k=9).factory.startswith(
        "HNSW"
    )  # either of the ninth's two is a hit


def test_any_vector_as_similar_as_the_last_one_counts() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    queries, kth_similarity = np.eye(4, dtype=np.float32)[:2], np.ones(2, np.float32)
    assert recall_of(np.array([[1], [2]]), vectors, queries, kth_similarity) == 1
    assert recall_of(np.array([[0], [3]]), vectors, queries, kth_similarity) == 0.5
    assert recall_of(np.array([[-1], [-1]]), vectors, queries, kth_similarity) == 0
