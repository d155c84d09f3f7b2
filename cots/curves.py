"""Names of the columns of training curves, which are also the names of MLflow's metrics."""

from collections.abc import Iterable

TOTAL_LOSS = "loss/total"
KEEP_RATE = "filter/keep_rate"
FILTER_THRESHOLD = "filter/threshold"
GRAD_NORM = "grad_norm/total"  # before clipping
VALIDATION = "val/"  # before the names of scores on the validation split
VALIDATION_RSUM = f"{VALIDATION}rsum"
SIMILARITY_MEAN, SIMILARITY_STD = "similarity/mean", "similarity/std"

_LOSS = "loss/"

# Names in release 0.1: its unfinished runs can be resumed, and its finished runs appear in reports.
_NAMES_OF_0_1 = {
    **{name: _LOSS + name for name in ("total", "instance", "token", "task", "masked_views", "contrastive", "sigmoid")},
    "kept": KEEP_RATE,
    "threshold": FILTER_THRESHOLD,
    "mean": SIMILARITY_MEAN,
    "sigma": SIMILARITY_STD,
}


def loss_column(name: str) -> str:
    """Column of a loss, by its name in the objective."""
    return _LOSS + name


def loss_columns(columns: Iterable[str]) -> list[str]:
    """Columns of losses among those of a run's curves, in their order: the weighted sum and its terms."""
    return [name for name in columns if name.startswith(_LOSS)]


def current_column(name: str) -> str:
    """Current name of a column, which may have another name in release 0.1."""
    return _NAMES_OF_0_1.get(name, name)
