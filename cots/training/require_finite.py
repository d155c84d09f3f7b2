"""Ends a run whose numbers have become useless."""

import math

from cots.errors import RunFailed


def require_finite(step: int, **values: float) -> None:
    """Check values of a training step by their names.

    Raises:
        RunFailed: one of them is infinite or no number, and so are all weights from here on.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise RunFailed(f"the {name} is {value} at step {step}: lower the learning rate")
