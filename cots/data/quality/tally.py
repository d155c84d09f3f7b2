"""Counts of values that are not as expected."""

from dataclasses import dataclass, field

import pandas as pd

MAX_EXAMPLES = 3  # failing values that are shown


@dataclass(slots=True)
class Tally:
    """How many values were checked, how many of them fail, and the first of these.

    Attributes:
        checked: number of values.
        failing: how many of them.
        examples: up to `MAX_EXAMPLES`, in words.
    """

    checked: int = 0
    failing: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, values: pd.Series, passes: pd.Series) -> None:
        """Count more values; `passes` says of each whether it is as expected."""
        self.checked += len(values)
        if not passes.all():
            self.add_failing(values[~passes])

    def add_failing(self, values: pd.Series) -> None:
        """Count more values that fail and were counted as checked already."""
        self.failing += len(values)
        self.examples += map(str, values[: MAX_EXAMPLES - len(self.examples)])

    @property
    def share(self) -> float:
        """Fraction of the values that fail; 0 if there are none."""
        return self.failing / max(self.checked, 1)

    def __str__(self) -> str:
        """How many fail, with examples."""
        examples = ", ".join(sorted({*self.examples} - {"True"}))  # a flag that is set tells nothing more
        return f"{self.failing} of {self.checked} fail{f', such as {examples}' if examples else ''}"
