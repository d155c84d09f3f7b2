"""FAISS on a GPU: the same results; and, without one, which searches would be sent to it."""

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
    """Above the bytes from which an index goes to the GPU."""
    vectors = np.random.default_rng(0).normal(size=(9000, 1024)).astype(np.float32)
    assert vectors.nbytes > gpu.LEAST_BYTES
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class Sent:
    """Stands in for FAISS's GPU: holds a copy on the processor and counts what is asked of it."""

    def __init__(self, index: faiss.Index) -> None:
        self.index = faiss.clone_index(index)
        self.asked: list[int] = []

    def search(self, queries: Rows, k: int) -> tuple[Rows, NDArray[np.int64]]:
        self.asked.append(k)
        scores, rows = self.index.search(queries, k)
        return scores, rows


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """What is sent to a GPU that FAISS is made to see."""
    copies: list[Sent] = []

    def send(resources: object, device: int, index: faiss.Index) -> Sent:
        assert device == 0
        if "HNSW" in type(faiss.downcast_index(getattr(index, "quantizer", index))).__name__:
            raise RuntimeError("Error in a function at a file:1:\nthis kind is not implemented on a GPU")
        copies.append(Sent(index))
        return copies[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", send, raising=False)
    made = SimpleNamespace(setTempMemory=lambda size: None)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: made, raising=False)
    gpu._resources.cache_clear()
    return copies


@pytest.mark.skipif(not faiss.get_num_gpus(), reason="faiss-gpu with a GPU is not here")
@pytest.mark.parametrize("kind", ["Flat", "IVF16,Flat", "IVF16,SQfp16", "IVF16,PQ64"])
def test_a_gpu_finds_what_the_processor_finds(kind: str, embeddings: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    index = EmbeddingIndex.build(embeddings, kind)
    if kind.startswith("IVF"):
        index.set("nprobe=16")
    assert index._gpu is not None
    scores, rows = index.search(embeddings[:64], 10)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    vars(index).pop("_gpu")
    exact_scores, exact_rows = index.search(embeddings[:64], 10)
    np.testing.assert_allclose(scores, exact_scores, atol=2e-3)
    assert np.mean(rows == exact_rows) > (0.95 if "PQ" in kind else 0.99)  # neighbours whose scores round alike


def test_everything_is_searched_on_the_gpu_and_a_selection_is_not(embeddings: Rows, sent: list[Sent]) -> None:
    index = EmbeddingIndex.build(embeddings, "Flat")
    _, rows = index.search(embeddings[:3], 5)
    assert rows[:, 0].tolist() == [0, 1, 2]
    index.search(embeddings[:3], gpu.MOST)
    index.search(embeddings[:3], gpu.MOST + 1)
    index.search(embeddings[:3], 5, id_filter=np.arange(9000) < 100)
    assert [copy.asked for copy in sent] == [[5, gpu.MOST]]


def test_new_settings_reach_the_gpu(embeddings: Rows, sent: list[Sent]) -> None:
    index = EmbeddingIndex.build(embeddings, "IVF16,Flat")
    for lists in (1, 16):
        index.set(f"nprobe={lists}")
        index.search(embeddings[:1], 1)
    assert [faiss.extract_index_ivf(copy.index).nprobe for copy in sent] == [1, 16]


@pytest.mark.slow
def test_a_small_index_a_graph_and_a_refined_one_stay_off_it(embeddings: Rows, sent: list[Sent]) -> None:
    for count, kind in [(8000, "Flat"), (9000, "HNSW4,SQ8"), (9000, "IVF4,PQ64x4fs,RFlat")]:
        assert EmbeddingIndex.build(embeddings[:count], kind).search(embeddings[:2], 3)[1].shape == (2, 3)
    assert sent == []


def test_what_a_gpu_refuses_is_said_and_searched_on_the_processor(
    embeddings: Rows, sent: list[Sent], caplog: pytest.LogCaptureFixture
) -> None:
    index = EmbeddingIndex.build(embeddings, "IVF16_HNSW8,Flat")
    assert index.search(embeddings[:1], 1)[1].tolist() == [[0]]
    assert re.search("stays off the GPU: this kind is not implemented", caplog.text)
    assert sent == []


def test_without_a_gpu_nothing_is_sent(embeddings: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert GpuIndex.of(faiss.IndexFlatIP(1024)) is None
