"""A time limit for flow runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.utilities.timeout import timeout


@contextmanager
def time_limit(hours: float | None) -> Iterator[None]:
    """Abort the block after this many hours; None means no limit.

    A flow's own `timeout_seconds` is fixed in its code; this limit can be a parameter of the deployment.

    Raises:
        TimeoutError: the time is up; Prefect reports the run as `TimedOut`.
    """
    with timeout(hours and hours * 3600):
        yield
