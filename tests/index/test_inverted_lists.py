"""Inverted lists on disk: the file is FAISS's own, what is in memory does not grow with the vectors."""

import resource
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index import embedding_file, inverted_lists
from cots.index.embedding_file import EmbeddingFile, blocks
from cots.index.embedding_index import EmbeddingIndex
from cots.index.inverted_lists import build_lists, num_lists, share_lists

Rows = NDArray[np.float32]
FACTORY = "IVF64,SQ8"


def clusters(count: int, dim: int = 32) -> Rows:
    """Unit rows around 200 centres."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, dim))[rng.integers(200, size=count)] + 0.6 * rng.normal(size=(count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return clusters(5_000)


@pytest.fixture(scope="module")
def lists(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of lists, written in blocks of 300 rows, two to a run."""
    path = tmp_path_factory.mktemp("lists") / "index.faiss"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_file, "BLOCK", 300)
        patch.setattr(inverted_lists, "BLOCKS_PER_RUN", 2)
        index = EmbeddingIndex.build_mapped(rows, FACTORY, path.parent)
    index.set("nprobe=8")
    index.save(path)
    return path


def recall(index: EmbeddingIndex, rows: Rows, k: int, selected: NDArray[np.bool_] | None = None) -> float:
    queries = rows[::25]
    nearest = EmbeddingIndex.build(rows, "Flat").search(queries, k, id_filter=selected)[1]
    results = index.search(queries, k, id_filter=selected)[1]
    return float(np.mean([len({*some} & {*exact}) / k for some, exact in zip(results, nearest, strict=True)]))


def test_the_file_is_the_one_that_faiss_writes(lists: Path, tmp_path: Path) -> None:
    faiss.write_index(faiss.read_index(str(lists)), str(tmp_path / "again.faiss"))
    assert (tmp_path / "again.faiss").read_bytes() == lists.read_bytes()


def test_every_vector_lies_in_one_list_in_the_order_of_rows(lists: Path) -> None:
    index: Any = faiss.read_index(str(lists))
    ids = [
        faiss.rev_swig_ptr(index.invlists.get_ids(number), index.invlists.list_size(number))
        for number in range(index.nlist)
    ]
    assert all((np.diff(part) > 0).all() for part in ids)
    np.testing.assert_array_equal(np.sort(np.concatenate(ids)), np.arange(5_000))


@pytest.mark.parametrize("block", [300, 777, 65_536])
def test_the_bytes_depend_on_the_vectors_alone(
    block: int, lists: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_file, "BLOCK", block)
    file = EmbeddingFile(32, tmp_path)
    for start in range(0, 5_000, 999):
        file.append(rows[start : start + 999])
    index = EmbeddingIndex.build_mapped(file, FACTORY, tmp_path)
    index.set("nprobe=8")
    index.rows([3])  # which no byte tells
    index.save(tmp_path / "index.faiss")
    assert (tmp_path / "index.faiss").read_bytes() == lists.read_bytes()


@pytest.mark.parametrize("selected", [None, np.arange(5_000) % 3 == 0, np.arange(5_000) < 40])
def test_mapped_lists_give_what_lists_in_memory_give(lists: Path, rows: Rows, selected: NDArray[np.bool_]) -> None:
    mapped, in_memory = EmbeddingIndex.load(lists), EmbeddingIndex(faiss.read_index(str(lists)))
    for k in (1, 10, 40):
        pairs = zip(*(index.search(rows[:50], k, id_filter=selected) for index in (mapped, in_memory)), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(mapped.vectors, in_memory.vectors)
    np.testing.assert_array_equal(mapped.rows([7, 0, 4_999]), in_memory.vectors[[7, 0, 4_999]])
    assert (mapped.vectors * rows).sum(axis=1).mean() > 0.999


def test_a_mapped_file_may_be_removed(lists: Path, rows: Rows, tmp_path: Path) -> None:
    copy = tmp_path / "index.faiss"
    copy.write_bytes(lists.read_bytes())
    index = EmbeddingIndex.load(copy)
    copy.unlink()
    assert (index.search(rows, 1)[1][:, 0] == np.arange(5_000)).mean() > 0.99


@pytest.mark.parametrize("k", [10, 100])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("location", ["anywhere", "on one side"])
def test_recall_holds_for_more_results_and_with_a_filter(
    k: int, fraction: float, location: str, lists: Path, rows: Rows
) -> None:
    order = np.random.default_rng(1).random(5_000) if location == "anywhere" else rows[:, 0]
    selected = order <= np.quantile(order, fraction)
    assert recall(EmbeddingIndex.load(lists), rows, min(k, 40), selected) > 0.95


def test_all_results_can_be_asked_for(lists: Path, rows: Rows) -> None:
    results = EmbeddingIndex.load(lists).search(rows[:2], 5_000)[1]
    np.testing.assert_array_equal(np.sort(results, axis=1), [np.arange(5_000)] * 2)


@pytest.mark.parametrize("kept", [3, 200, -1_000, -1])
def test_a_file_that_is_cut_off_is_refused_in_one_line(kept: int, lists: Path, tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(lists.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"index\.faiss is not a FAISS index: ") as raised:
        EmbeddingIndex.load(tmp_path / "index.faiss")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("sampled", [64, 1])
def test_vectors_that_are_not_finite_are_refused(
    sampled: int, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_lists, "TRAIN_VECTORS_PER_LIST", sampled)
    broken = rows.copy()
    broken[4_320, 5] = np.nan
    with pytest.raises(ValueError, match="needs finite embeddings"):
        EmbeddingIndex.build_mapped(broken, FACTORY, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("sizes", "lists"), [([5, 1, 1, 1], 8), ([900, 0, 3, 97], 64), ([1, 1, 1, 997], 64)])
def test_lists_are_shared_by_size_and_no_group_has_more_than_vectors(sizes: list[int], lists: int) -> None:
    counts = share_lists(np.array(sizes), lists)
    assert counts.sum() == lists
    assert (counts <= sizes).all()
    np.testing.assert_allclose(counts, lists * np.array(sizes) / sum(sizes), atol=1)


@pytest.mark.parametrize("duplicates", [4_990, 5_000])
def test_equal_vectors_share_lists(duplicates: int, rows: Rows, tmp_path: Path) -> None:
    same = rows.copy()
    same[:duplicates] = rows[0]
    index = EmbeddingIndex.build_mapped(same, FACTORY, tmp_path)
    assert index.search(rows[:1], 3)[0].min() > 0.98


def test_only_blocks_of_the_vectors_come_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_file, "BLOCK", 1_000)
    read: list[int] = []

    class Counted(EmbeddingFile):
        def _read(self, start: int, count: int) -> Rows:
            read.append(count)
            return super()._read(start, count)

    file = Counted(8, tmp_path)
    file.append(clusters(20_000, dim=8))
    index: Any = faiss.index_factory(8, "IVF16,SQ8", faiss.METRIC_INNER_PRODUCT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    build_lists(file, index, tmp_path / "index.faiss")
    assert max(read) == 1_000
    assert read.count(1_000) == 2 * 20  # once for the list of each vector, once for its code
    assert read.count(1) == len(read) - 40 == inverted_lists.TRAIN_VECTORS_PER_LIST * 16
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert index.ntotal == 0


def test_a_file_is_read_like_an_array(rows: Rows, tmp_path: Path) -> None:
    file = EmbeddingFile(32, tmp_path)
    file.append(rows[:0])
    assert (len(file), file.shape, file[:].shape, list(blocks(file))) == (0, (0, 32), (0, 32), [])
    file.append(rows[:3_000])
    file.append(rows[3_000:])
    assert (len(file), file.shape, file.nbytes) == (5_000, rows.shape, rows.nbytes)
    for chosen in (slice(None), slice(7, 2_000), slice(4_990, 9_999), slice(9_000, 9_001), slice(1, 100, 7)):
        np.testing.assert_array_equal(file[chosen], rows[chosen])
    numbers = np.array([[3, 4_999], [-1, 0]])
    np.testing.assert_array_equal(file[numbers], rows[numbers])
    np.testing.assert_array_equal(file.pop(100), rows[-100:])
    file.append(rows[:1])
    np.testing.assert_array_equal(file[4_899:], rows[[4_899, 0]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("vectors", "expected"), [(1, 1), (20, 16), (6_000, 256), (2_200_000, 8_192), (10**7, 16_384)])
def test_lists_grow_with_the_square_root(vectors: int, expected: int) -> None:
    assert num_lists(vectors) == expected
