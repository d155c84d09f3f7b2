"""Dynamic batching: queries that arrive together are encoded together, in one thread."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cots.search_engine.queries import Query, encode_queries
from cots.service.loaded_version import LoadedVersion
from cots.service.metrics import ServiceMetrics

WAIT_SECONDS = 0.002  # a lone query waits this long for others


class BatchAnswer(NamedTuple):
    """Results and embedding of one query."""

    results: list[dict[str, Any]]  # in the format of `SearchEngine.search_vectors`
    vector: NDArray[np.float32]  # (D,) query embedding


@dataclass(frozen=True, slots=True)
class PendingQuery:
    """A queued query, the version that must answer it, and the future for its answer."""

    version: LoadedVersion
    query: Query
    answer: asyncio.Future[BatchAnswer]


class DynamicBatcher:
    """Collects queries while the encoding thread is busy, or for `WAIT_SECONDS` when it is idle.

    A batch contains queries for one version only, in order of arrival.

    Args:
        metrics: records the size of each batch.
    """

    def __init__(self, metrics: ServiceMetrics) -> None:
        self._metrics = metrics
        self._queue: deque[PendingQuery] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cots-encoding")

    async def submit(self, version: LoadedVersion, query: Query) -> BatchAnswer:
        """Queue a query for `version` and wait for its answer."""
        answer: asyncio.Future[BatchAnswer] = asyncio.get_running_loop().create_future()
        self._queue.append(PendingQuery(version, query, answer))
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Answer queued queries until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                await asyncio.sleep(WAIT_SECONDS)
            batch = self._next_batch()
            if not batch:
                continue
            self._metrics.batch.observe(len(batch))
            try:
                answers = await loop.run_in_executor(self._thread, _answer_batch, batch)
            except Exception as error:  # every client of the batch gets the error
                _set_answers(batch, [error] * len(batch))
            else:
                _set_answers(batch, answers)

    def close(self) -> None:
        """Shut the encoding thread down."""
        self._thread.shutdown()

    def _next_batch(self) -> list[PendingQuery]:
        """Take queries for one version from the front of the queue, skipping those whose client has disconnected."""
        batch: list[PendingQuery] = []
        while self._queue and (not batch or self._fits(batch)):
            pending = self._queue.popleft()
            if not pending.answer.done():
                batch.append(pending)
        return batch

    def _fits(self, batch: Sequence[PendingQuery]) -> bool:
        version = batch[0].version
        return self._queue[0].version is version and len(batch) < version.batch_size


def _answer_batch(batch: Sequence[PendingQuery]) -> list[BatchAnswer]:
    version, queries = batch[0].version, [pending.query for pending in batch]
    vectors = encode_queries(version.search.model, queries, batch_size=version.batch_size)
    results = version.search.search_vectors(queries, vectors)
    return [BatchAnswer(*answer) for answer in zip(results, vectors, strict=True)]


def _set_answers(batch: Sequence[PendingQuery], outcomes: Sequence[BatchAnswer | Exception]) -> None:
    for pending, outcome in zip(batch, outcomes, strict=True):
        if pending.answer.done():
            continue
        if isinstance(outcome, Exception):
            pending.answer.set_exception(outcome)
        else:
            pending.answer.set_result(outcome)
