"""Queries of requests that come together are encoded together, by one thread."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cots.search.queries import Query, encode_queries
from cots.service.loaded_version import LoadedVersion
from cots.service.metrics import ServiceMetrics

WAIT_SECONDS = 0.002  # that a query which comes alone waits for company


class BatchAnswer(NamedTuple):
    """What became of one query."""

    results: list[dict[str, Any]]  # as `Search.ranked` gives them
    vector: NDArray[np.float32]  # (D,) of the query


@dataclass(frozen=True, slots=True)
class PendingQuery:
    """A query, the version that is to answer it, and where the answer goes."""

    deployed: LoadedVersion
    query: Query
    answer: asyncio.Future[BatchAnswer]


class DynamicBatcher:
    """Gathers queries while the thread is busy, and for a moment when it is not.

    A batch holds queries of one version only, in the order in which they came.

    Args:
        meters: told the size of each batch.
    """

    def __init__(self, meters: ServiceMetrics) -> None:
        self._meters = meters
        self._queue: deque[PendingQuery] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cots-encoding")

    async def submit(self, deployed: LoadedVersion, query: Query) -> BatchAnswer:
        """The answer of `deployed` to a query."""
        answer: asyncio.Future[BatchAnswer] = asyncio.get_running_loop().create_future()
        self._queue.append(PendingQuery(deployed, query, answer))
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
                await asyncio.sleep(WAIT_SECONDS)
            batch = self._next()
            if not batch:
                continue
            self._meters.batch.observe(len(batch))
            try:
                found = await loop.run_in_executor(self._thread, _found, batch)
            except Exception as error:  # told to each of those who asked
                _settle(batch, [error] * len(batch))
            else:
                _settle(batch, found)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown()

    def _next(self) -> list[PendingQuery]:
        """From the front of the queue, of one version; without those whose askers have gone."""
        batch: list[PendingQuery] = []
        while self._queue and (not batch or self._fits(batch)):
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    def _fits(self, batch: Sequence[PendingQuery]) -> bool:
        deployed = batch[0].deployed
        return self._queue[0].deployed is deployed and len(batch) < deployed.batch


def _found(batch: Sequence[PendingQuery]) -> list[BatchAnswer]:
    deployed, queries = batch[0].deployed, [waiting.query for waiting in batch]
    asked = encode_queries(deployed.search.model, queries, batch=deployed.batch)
    results = deployed.search.search_vectors(queries, asked)
    return [BatchAnswer(*one) for one in zip(results, asked, strict=True)]


def _settle(batch: Sequence[PendingQuery], outcomes: Sequence[BatchAnswer | Exception]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.answer.done():
            continue
        if isinstance(outcome, Exception):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)
