"""Sends curves to MLflow while a run trains, so that they can be watched."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from cots.errors import RunFailed
from cots.tracking.runs import LoggedRun

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0


class LiveCurves:
    """Sends rows of curves to an open run from a thread, every `INTERVAL_SECONDS`.

    Training never waits for it. If the server is down it only warns, and `LoggedRun.log_curves` sends the missing rows
    at the end.

    Args:
        run: the open run.
    """

    def __init__(self, run: LoggedRun) -> None:
        self._run = run
        self._queued: list[Mapping[str, float]] = []
        self._pool = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None
        self._sent_at = time.monotonic()
        self._warned = False

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until the rows that are being sent have arrived."""
        self._pool.shutdown()

    def add(self, row: Mapping[str, float]) -> None:
        """Queue the row of a step; if the interval is over and nothing is being sent, send all queued rows."""
        self._queued.append(dict(row))
        if time.monotonic() - self._sent_at >= INTERVAL_SECONDS and (self._sending is None or self._sending.done()):
            rows, self._queued = self._queued, []
            self._sending = self._pool.submit(self._send, rows)
            self._sent_at = time.monotonic()

    def _send(self, rows: list[Mapping[str, float]]) -> None:
        try:
            self._run.log_rows(rows)
        except RunFailed as error:
            if not self._warned:
                log.warning("some of the curves reach MLflow only when the training has ended: %s", error)
            self._warned = True
