"""Names of the columns of a training run's curves, which are MLflow's metrics too."""

from collections.abc import Iterable

TOTAL_LOSS = "loss/total"
KEEP_RATE = "filter/keep_rate"
FILTER_THRESHOLD = "filter/threshold"
SIMILARITY_MEAN, SIMILARITY_STD = "similarity/mean", "similarity/std"

_LOSS = "loss/"

# Names in release 0.1, whose unfinished runs go on and whose finished ones are reported.
_NAMES_OF_0_1 = {
    **{name: _LOSS + name for name in ("total", "instance", "token", "task", "masked_views", "contrastive", "sigmoid")},
    "kept": KEEP_RATE,
    "threshold": FILTER_THRESHOLD,
    "mean": SIMILARITY_MEAN,
    "sigma": SIMILARITY_STD,
}


def loss_column(name: str) -> str:
    """The column of one loss, named as the objective names it."""
    return _LOSS + name


def loss_columns(columns: Iterable[str]) -> list[str]:
    """The losses among the columns of a run's curves, in their order: the weighted sum and its terms."""
    return [name for name in columns if name.startswith(_LOSS)]


def current_column(name: str) -> str:
    """Today's name of a column that release 0.1 may have named otherwise."""
    return _NAMES_OF_0_1.get(name, name)
