"""Which columns of a training run's curves are losses: all that an objective adds, without a list to be kept."""

from collections.abc import Iterable

NOT_LOSSES = frozenset(
    {
        *("step", "learning_rate", "pairs_per_second", "utilisation", "data_wait"),  # of every run
        *("kept", "mean", "sigma", "threshold", "temperature", "bias", "perplexity"),  # metrics of objectives and dVAE
    }
)


def loss_columns(columns: Iterable[str]) -> list[str]:
    """The losses among the columns of a run's curves, in their order: the weighted sum, `total`, and its terms."""
    return [name for name in columns if name not in NOT_LOSSES]
