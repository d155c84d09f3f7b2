"""How many examples hypothesis draws."""

import os

from hypothesis import HealthCheck, settings

FUZZ = int(os.environ.get("COTS_FUZZ", "0"))


def drawn(examples: int) -> settings:
    """Settings for as many examples, always the same; with COTS_FUZZ=N for N times as many, by --hypothesis-seed."""
    return settings(
        max_examples=examples * max(FUZZ, 1),
        derandomize=not FUZZ,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
