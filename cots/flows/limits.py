"""A limit on how long a run may take."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.utilities.timeout import timeout


@contextmanager
def time_limit(hours: float | None) -> Iterator[None]:
    """End what goes on within after so many hours; without a number, never.

    The flow's own `timeout_seconds` is fixed where the flow is written; this is a parameter of its deployment.

    Raises:
        TimeoutError: time is up; Prefect tells the run as `TimedOut`.
    """
    with timeout(hours and hours * 3600):
        yield
