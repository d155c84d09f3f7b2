"""The FAISS index: exactness, faults in words, files."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index.embedding_index import EmbeddingIndex

Rows = NDArray[np.float32]
KINDS = ["Flat", "HNSW8", "IVF4,Flat", "SQ8", "IVF4,PQ4x4fs,RFlat"]


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


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_a_vector_by_itself(kind: str, embeddings: NDArray[np.float32]) -> None:
    _, rows = EmbeddingIndex.build(embeddings, kind).search(embeddings, 1)
    assert np.mean(rows[:, 0] == np.arange(300)) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_build_gives_the_same_bytes(kind: str, embeddings: NDArray[np.float32], tmp_path: Path) -> None:
    for name in ("first.faiss", "second.faiss"):
        EmbeddingIndex.build(embeddings, kind).save(tmp_path / name)
    assert (tmp_path / "first.faiss").read_bytes() == (tmp_path / "second.faiss").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.faiss", "second.faiss"]


def test_a_saved_index_answers_as_before(embeddings: NDArray[np.float32], tmp_path: Path) -> None:
    index = EmbeddingIndex.build(embeddings, "HNSW8")
    index.save(tmp_path / "deep" / "index.faiss")
    loaded = EmbeddingIndex.load(tmp_path / "deep" / "index.faiss")
    assert (len(loaded), loaded.dim) == (300, 16)
    for before, after in zip(index.search(embeddings, 5), loaded.search(embeddings, 5), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_flat_search_among_some_rows_is_exact(share: float, embeddings: NDArray[np.float32]) -> None:
    among = np.random.default_rng(1).random(300) < share
    similarity = embeddings[:20] @ embeddings.T
    similarity[:, ~among] = -2
    k = min(7, int(among.sum()))
    scores, rows = EmbeddingIndex.build(embeddings, "Flat").search(embeddings[:20], k, id_filter=among)
    expected = np.argsort(-similarity, axis=1)[:, :k]
    assert rows.tolist() == expected.tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("kind", [*KINDS, "PQ4x4", "PCA8,Flat", "PCA8,HNSW8", "OPQ4,IVF4,PQ4x4"])
def test_every_kind_finds_only_what_it_may(kind: str, embeddings: NDArray[np.float32]) -> None:
    among = np.arange(300) % 3 == 0
    index = EmbeddingIndex.build(embeddings, kind)
    scores, rows = index.search(embeddings[among], 5, id_filter=among)
    assert among[rows[rows >= 0]].all()
    assert (np.diff(np.where(rows >= 0, scores, -9), axis=1) <= 0).all()
    assert np.mean(rows[:, 0] == np.flatnonzero(among)) > 0.6
    with pytest.raises(ValueError, match="k must be from 1 to the 100 items of the index, not 101"):
        index.search(embeddings, 101, id_filter=among)


@pytest.fixture(scope="module")
def crowd() -> tuple[Rows, Rows, EmbeddingIndex]:
    """4,000 rows, 100 queries and a graph over the rows that finds 95 % of the ten nearest."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(200, 32))
    rows = unit(centres[random.integers(200, size=4_000)] + 0.6 * random.normal(size=(4_000, 32)))
    queries = unit(rows[:100] + 0.1 * random.normal(size=(100, 32)))
    return rows, queries, EmbeddingIndex.build(rows, "HNSW8,SQfp16", "efSearch=10")


def unit(rows: NDArray[np.float64]) -> Rows:
    made: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def recall(crowd: tuple[Rows, Rows, EmbeddingIndex], k: int, among: NDArray[np.bool_] | None = None) -> float:
    rows, queries, graph = crowd
    nearest = EmbeddingIndex.build(rows, "Flat").search(queries, k, id_filter=among)[1]
    found = graph.search(queries, k, id_filter=among)[1]
    return float(np.mean([len({*mine} & {*theirs}) / k for mine, theirs in zip(found, nearest, strict=True)]))


def test_a_graph_set_for_ten_finds_more_as_well(crowd: tuple[Rows, Rows, EmbeddingIndex]) -> None:
    assert recall(crowd, 10) > 0.95
    assert recall(crowd, 100) > 0.95


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_a_graph_compares_a_small_selection_row_by_row(share: float, crowd: tuple[Rows, Rows, EmbeddingIndex]) -> None:
    assert recall(crowd, 10, np.random.default_rng(1).random(4_000) < share) > 0.99  # half precision


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("where", ["anywhere", "on one side"])
def test_a_graph_finds_as_much_of_a_large_selection(
    where: str, share: float, crowd: tuple[Rows, Rows, EmbeddingIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cots.index.embedding_index.COMPARED", 100)
    order = np.random.default_rng(1).random(4_000) if where == "anywhere" else crowd[0][:, 0]
    among = order <= np.quantile(order, share)
    assert recall(crowd, 10, among) > 0.95


def test_no_queries_find_nothing(embeddings: NDArray[np.float32]) -> None:
    scores, rows = EmbeddingIndex.build(embeddings, "Flat").search(embeddings[:0], 3)
    assert scores.shape == rows.shape == (0, 3)


def test_an_index_of_one_item_is_searchable(embeddings: NDArray[np.float32]) -> None:
    assert EmbeddingIndex.build(embeddings[:1], "Flat").search(embeddings, 1)[1].max() == 0


@pytest.mark.parametrize("k", [0, -1, 301])
def test_k_beyond_the_index_is_refused_in_words(k: int, embeddings: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=f"k must be from 1 to the 300 items of the index, not {k}"):
        EmbeddingIndex.build(embeddings, "Flat").search(embeddings, k)


def test_queries_of_another_dimension_are_refused(embeddings: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"queries must be \(Q, 16\)"):
        EmbeddingIndex.build(embeddings, "Flat").search(embeddings[:, :8], 1)


def test_broken_numbers_are_refused(embeddings: NDArray[np.float32]) -> None:
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
    ("kind", "words"),
    [
        ("IVF512,Flat", "cannot build 'IVF512,Flat' from 300 vectors: Number of training points"),
        ("Nonsense", "makes no index 'Nonsense' of dimension 16: could not parse"),
        ("PQ5", "makes no index 'PQ5' of dimension 16: The dimension"),
        ("HNSW8,PQ4x4", "makes 'HNSW8,PQ4x4' for distances alone, not for similarities"),
    ],
)
def test_a_kind_that_cannot_be_built_is_told_in_words(kind: str, words: str, embeddings: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        EmbeddingIndex.build(embeddings, kind)
    assert ".cpp" not in str(caught.value)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(b"not an index")
    with pytest.raises(ValueError, match="not a FAISS index"):
        EmbeddingIndex.load(tmp_path / "index.faiss")
    with pytest.raises(ValueError, match="no index"):
        EmbeddingIndex.load(tmp_path / "absent.faiss")
