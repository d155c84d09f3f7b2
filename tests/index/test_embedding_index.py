"""The FAISS index: exactness, error messages, files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index.embedding_index import EmbeddingIndex

Rows = NDArray[np.float32]
FACTORIES = ["Flat", "HNSW8", "IVF4,Flat", "SQ8", "IVF4,PQ4x4fs,RFlat"]


@pytest.fixture
def embeddings() -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).normal(size=(300, 16))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_flat_search_is_exact(embeddings: NDArray[np.float32]) -> None:
    scores, rows = EmbeddingIndex.build(embeddings, "Flat").search(embeddings[:20], 7)
    similarity = embeddings[:20] @ embeddings.T
    expected = np.argsort(-similarity, axis=1)[:, :7]
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_index_finds_a_vector_by_itself(factory: str, embeddings: NDArray[np.float32]) -> None:
    _, rows = EmbeddingIndex.build(embeddings, factory).search(embeddings, 1)
    assert np.mean(rows[:, 0] == np.arange(300)) > 0.9


@pytest.mark.parametrize("factory", [*FACTORIES, "OPQ4,PQ4", "PQ4x4fs", "HNSW8,SQfp16", "IVF4,SQ8"])
def test_every_index_gives_its_vectors_back_in_their_order(factory: str, embeddings: NDArray[np.float32]) -> None:
    vectors = EmbeddingIndex.build(embeddings, factory).vectors
    similarity = vectors @ embeddings.T
    assert vectors.shape == embeddings.shape
    assert np.mean(similarity.argmax(axis=1) == np.arange(300)) > 0.5


@pytest.mark.parametrize("factory", [*FACTORIES, "PQ4x4fs", "HNSW8,SQfp16", "IVF4,SQ8", "PCA8,IVF4,Flat"])
def test_some_rows_are_those_of_all_vectors(factory: str, embeddings: NDArray[np.float32]) -> None:
    index = EmbeddingIndex.build(embeddings, factory)
    np.testing.assert_allclose(index.rows([7, 0, 299]), index.vectors[[7, 0, 299]], atol=1e-6)


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_second_build_gives_the_same_bytes(factory: str, embeddings: NDArray[np.float32], tmp_path: Path) -> None:
    for name in ("first.faiss", "second.faiss"):
        EmbeddingIndex.build(embeddings, factory).save(tmp_path / name)
    assert (tmp_path / "first.faiss").read_bytes() == (tmp_path / "second.faiss").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.faiss", "second.faiss"]


def test_a_saved_index_returns_the_same_results(embeddings: NDArray[np.float32], tmp_path: Path) -> None:
    index = EmbeddingIndex.build(embeddings, "HNSW8")
    index.save(tmp_path / "deep" / "index.faiss")
    loaded = EmbeddingIndex.load(tmp_path / "deep" / "index.faiss")
    assert (len(loaded), loaded.dim) == (300, 16)
    for before, after in zip(index.search(embeddings, 5), loaded.search(embeddings, 5), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("fraction", [0.02, 0.5, 1.0])
def test_filtered_flat_search_is_exact(fraction: float, embeddings: NDArray[np.float32]) -> None:
    selected = np.random.default_rng(1).random(300) < fraction
    similarity = embeddings[:20] @ embeddings.T
    similarity[:, ~selected] = -2
    k = min(7, int(selected.sum()))
    scores, rows = EmbeddingIndex.build(embeddings, "Flat").search(embeddings[:20], k, id_filter=selected)
    expected = np.argsort(-similarity, axis=1)[:, :k]
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("factory", [*FACTORIES, "PQ4x4", "PCA8,Flat", "PCA8,HNSW8", "OPQ4,IVF4,PQ4x4"])
def test_every_index_finds_only_selected_rows(factory: str, embeddings: NDArray[np.float32]) -> None:
    selected = np.arange(300) % 3 == 0
    index = EmbeddingIndex.build(embeddings, factory)
    scores, rows = index.search(embeddings[selected], 5, id_filter=selected)
    assert selected[rows[rows >= 0]].all()
    assert (np.diff(np.where(rows >= 0, scores, -9), axis=1) <= 0).all()
    assert np.mean(rows[:, 0] == np.flatnonzero(selected)) > 0.6
    with pytest.raises(ValueError, match="k must be from 1 to the 100 items of the index, not 101"):
        index.search(embeddings, 101, id_filter=selected)


@pytest.fixture(scope="module")
def graph_case() -> tuple[Rows, Rows, EmbeddingIndex]:
    """4,000 rows, 100 queries, and a graph over the rows that finds 95 % of the ten nearest."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(200, 32))
    rows = normalize(centres[random.integers(200, size=4_000)] + 0.6 * random.normal(size=(4_000, 32)))
    queries = normalize(rows[:100] + 0.1 * random.normal(size=(100, 32)))
    return rows, queries, EmbeddingIndex.build(rows, "HNSW8,SQfp16", "efSearch=10")


def normalize(rows: NDArray[np.float64]) -> Rows:
    unit_rows: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit_rows


def recall(graph_case: tuple[Rows, Rows, EmbeddingIndex], k: int, selected: NDArray[np.bool_] | None = None) -> float:
    rows, queries, graph = graph_case
    nearest = EmbeddingIndex.build(rows, "Flat").search(queries, k, id_filter=selected)[1]
    found = graph.search(queries, k, id_filter=selected)[1]
    return float(np.mean([len({*rows} & {*exact}) / k for rows, exact in zip(found, nearest, strict=True)]))


def test_a_graph_chosen_for_ten_results_finds_a_hundred_as_well(graph_case: tuple[Rows, Rows, EmbeddingIndex]) -> None:
    assert recall(graph_case, 10) > 0.95
    assert recall(graph_case, 100) > 0.95


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.9])
def test_a_graph_compares_a_small_selection_row_by_row(
    fraction: float, graph_case: tuple[Rows, Rows, EmbeddingIndex]
) -> None:
    assert recall(graph_case, 10, np.random.default_rng(1).random(4_000) < fraction) > 0.99  # half precision


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("location", ["anywhere", "on one side"])
def test_a_graph_keeps_its_recall_with_a_filter(
    location: str, fraction: float, graph_case: tuple[Rows, Rows, EmbeddingIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cots.index.embedding_index.MAX_BRUTE_FORCE", 100)
    order = np.random.default_rng(1).random(4_000) if location == "anywhere" else graph_case[0][:, 0]
    selected = order <= np.quantile(order, fraction)
    assert recall(graph_case, 10, selected) > 0.95


def test_no_queries_have_no_results(embeddings: NDArray[np.float32]) -> None:
    scores, rows = EmbeddingIndex.build(embeddings, "Flat").search(embeddings[:0], 3)
    assert scores.shape == rows.shape == (0, 3)


def test_an_index_of_one_item_is_searchable(embeddings: NDArray[np.float32]) -> None:
    assert EmbeddingIndex.build(embeddings[:1], "Flat").search(embeddings, 1)[1].max() == 0


@pytest.mark.parametrize("k", [0, -1, 301])
def test_k_beyond_the_index_is_refused(k: int, embeddings: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=f"k must be from 1 to the 300 items of the index, not {k}"):
        EmbeddingIndex.build(embeddings, "Flat").search(embeddings, k)


def test_queries_of_another_dimension_are_refused(embeddings: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"queries must be \(Q, 16\)"):
        EmbeddingIndex.build(embeddings, "Flat").search(embeddings[:, :8], 1)


def test_numbers_that_are_not_finite_are_refused(embeddings: NDArray[np.float32]) -> None:
    index = EmbeddingIndex.build(embeddings, "Flat")
    embeddings[4, 2] = np.nan
    with pytest.raises(ValueError, match="queries must be finite"):
        index.search(embeddings, 1)
    with pytest.raises(ValueError, match="needs finite embeddings"):
        EmbeddingIndex.build(embeddings, "Flat")


def test_an_empty_gallery_is_refused(embeddings: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="N > 0"):
        EmbeddingIndex.build(embeddings[:0], "Flat")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF512,Flat", "cannot build 'IVF512,Flat' from 300 vectors: Number of training points"),
        ("Nonsense", "cannot create 'Nonsense' of dimension 16: could not parse"),
        ("PQ5", "cannot create 'PQ5' of dimension 16: The dimension"),
        ("HNSW8,PQ4x4", "supports 'HNSW8,PQ4x4' only for distances, not for inner products"),
    ],
)
def test_the_message_about_an_index_that_cannot_be_built_says_why(
    factory: str, message: str, embeddings: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        EmbeddingIndex.build(embeddings, factory)
    assert ".cpp" not in str(raised.value)


def test_a_file_that_is_not_an_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(b"not an index")
    with pytest.raises(ValueError, match="not a FAISS index"):
        EmbeddingIndex.load(tmp_path / "index.faiss")
    with pytest.raises(ValueError, match="no index"):
        EmbeddingIndex.load(tmp_path / "absent.faiss")
