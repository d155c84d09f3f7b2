"""FAISS on a GPU: the same results; and, without a GPU, which searches would run on it."""

import re
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from cots.index import gpu
from cots.index.embedding_index import EmbeddingIndex
from cots.index.gpu import GpuIndex

Rows = NDArray[np.float32]


@pytest.fixture(scope="module")
def embeddings() -> Rows:
    """Large enough that the index is copied to the GPU."""
    vectors = np.random.default_rng(0).normal(size=(9000, 1024)).astype(np.float32)
    assert vectors.nbytes > gpu.MIN_BYTES
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class FakeGpuIndex:
    """Stands in for an index on the GPU: a copy on the CPU that records the k of each search."""

    def __init__(self, index: faiss.Index) -> None:
        self.index = faiss.clone_index(index)
        self.searches: list[int] = []

    def search(self, queries: Rows, k: int) -> tuple[Rows, NDArray[np.int64]]:
        self.searches.append(k)
        scores, rows = self.index.search(queries, k)
        return scores, rows


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[FakeGpuIndex]:
    """Indices copied to a GPU that FAISS only seems to see."""
    copies: list[FakeGpuIndex] = []

    def copy_to_gpu(resources: object, device: int, index: faiss.Index) -> FakeGpuIndex:
        assert device == 0
        if "HNSW" in type(faiss.downcast_index(getattr(index, "quantizer", index))).__name__:
            raise RuntimeError("Error in a function at a file:1:\nthis kind is not implemented on a GPU")
        copies.append(FakeGpuIndex(index))
        return copies[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy_to_gpu, raising=False)
    resources = SimpleNamespace(setTempMemory=lambda size: None)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: resources, raising=False)
    gpu._resources.cache_clear()
    return copies


@pytest.mark.skipif(not faiss.get_num_gpus(), reason="no faiss-gpu, or no GPU")
@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,SQfp16", "IVF16,PQ64"])
def test_a_gpu_finds_what_the_cpu_finds(factory: str, embeddings: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    index = EmbeddingIndex.build(embeddings, factory)
    if factory.startswith("IVF"):
        index.set("nprobe=16")
    assert index._gpu is not None
    scores, rows = index.search(embeddings[:64], 10)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    vars(index).pop("_gpu")
    exact_scores, exact_rows = index.search(embeddings[:64], 10)
    np.testing.assert_allclose(scores, exact_scores, atol=2e-3)
    assert np.mean(rows == exact_rows) > (0.95 if "PQ" in factory else 0.99)  # scores that are equal after rounding


def test_searches_without_a_filter_run_on_the_gpu(embeddings: Rows, copies: list[FakeGpuIndex]) -> None:
    index = EmbeddingIndex.build(embeddings, "Flat")
    _, rows = index.search(embeddings[:3], 5)
    assert rows[:, 0].tolist() == [0, 1, 2]
    index.search(embeddings[:3], gpu.MAX_K)
    index.search(embeddings[:3], gpu.MAX_K + 1)
    index.search(embeddings[:3], 5, id_filter=np.arange(9000) < 100)
    assert [copy.searches for copy in copies] == [[5, gpu.MAX_K]]


def test_new_settings_reach_the_gpu(embeddings: Rows, copies: list[FakeGpuIndex]) -> None:
    index = EmbeddingIndex.build(embeddings, "IVF16,Flat")
    for lists in (1, 16):
        index.set(f"nprobe={lists}")
        index.search(embeddings[:1], 1)
    assert [faiss.extract_index_ivf(copy.index).nprobe for copy in copies] == [1, 16]


@pytest.mark.slow
def test_small_indices_graphs_and_refined_ones_stay_off_the_gpu(embeddings: Rows, copies: list[FakeGpuIndex]) -> None:
    for count, factory in [(8000, "Flat"), (9000, "HNSW4,SQ8"), (9000, "IVF4,PQ64x4fs,RFlat")]:
        assert EmbeddingIndex.build(embeddings[:count], factory).search(embeddings[:2], 3)[1].shape == (2, 3)
    assert copies == []


def test_an_index_that_the_gpu_refuses_is_logged_and_searched_on_the_cpu(
    embeddings: Rows, copies: list[FakeGpuIndex], caplog: pytest.LogCaptureFixture
) -> None:
    index = EmbeddingIndex.build(embeddings, "IVF16_HNSW8,Flat")
    assert index.search(embeddings[:1], 1)[1].tolist() == [[0]]
    assert re.search("stays off the GPU: this kind is not implemented", caplog.text)
    assert copies == []


def test_without_a_gpu_nothing_is_copied(embeddings: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert GpuIndex.of(faiss.IndexFlatIP(1024)) is None
