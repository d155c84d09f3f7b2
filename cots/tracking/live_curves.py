"""Curves arrive in MLflow while a run trains, so that one can look before it ends."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from cots.errors import RunFailed
from cots.tracking.runs import LoggedRun

log = logging.getLogger(__name__)

SECONDS = 10.0  # between two sendings


class LiveCurves:
    """Sends the rows of curves to an open run from a thread, a few seconds' worth at a time.

    Training never waits for it. A server that is down costs nothing but a warning: `log_curves` of the run sends
    what is missing at the end.

    Args:
        run: the open run.
    """

    def __init__(self, run: LoggedRun) -> None:
        self._run = run
        self._rows: list[Mapping[str, float]] = []
        self._pool = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None
        self._sent = time.monotonic()
        self._warned = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being sent."""
        self._pool.shutdown()

    def add(self, row: Mapping[str, float]) -> None:
        """Take the row of a step; send all that wait if it is time and nothing is being sent."""
        self._rows.append(dict(row))
        if time.monotonic() - self._sent >= SECONDS and (self._sending is None or self._sending.done()):
            rows, self._rows = self._rows, []
            self._sending = self._pool.submit(self._send, rows)
            self._sent = time.monotonic()

    def _send(self, rows: list[Mapping[str, float]]) -> None:
        try:
            self._run.log_rows(rows)
        except RunFailed as error:
            if not self._warned:
                log.warning("some of the curves reach MLflow only when the training has ended: %s", error)
            self._warned = True
