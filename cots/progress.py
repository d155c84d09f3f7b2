"""Progress of long work, with rate and time left: a bar on a terminal, a line every 15 s elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tqdm import tqdm

from cots.curves import KEEP_RATE, VALIDATION_RSUM, loss_columns

LOG_EVERY = 15.0  # seconds between two lines


class Progress:
    """Counts finished work and shows it on standard error.

    Args:
        title: name of the work.
        total: amount of work; None if unknown.
        unit: of the amount, in the plural.
    """

    def __init__(self, title: str, *, total: int | None, unit: str) -> None:
        self.title, self.unit = title, unit
        self.is_terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=title, unit=f" {unit}", disable=not self.is_terminal, file=sys.stderr)
        self.done, self.total = 0, total
        self.skipped = 0  # done before this run resumed
        self.started = self.last_logged = time.monotonic()

    def __enter__(self) -> Self:
        """Start counting."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar, or print in one line how long the work took."""
        self.bar.close()
        if kind is None and not self.is_terminal:
            elapsed = time.monotonic() - self.started
            amount = f"{self.done - self.skipped} of {self.done}" if self.skipped else str(self.done)
            print(f"{self.title}: {amount} {self.unit} in {elapsed:.0f} s", file=sys.stderr, flush=True)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add to the count; `note` is shown after rate and time left."""
        self.done += amount
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(amount)
        now = time.monotonic()
        if not self.is_terminal and now - self.last_logged > LOG_EVERY:
            self.last_logged = now
            rate = (self.done - self.skipped) / (now - self.started)
            total, left = "", ""
            if self.total is not None:
                total, left = f"/{self.total}", f", {max(self.total - self.done, 0) / rate:.0f} s left"
            line = f"{self.title}: {self.done}{total} {self.unit}, {rate:.1f}/s{left} {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)

    def skip(self, amount: int) -> None:
        """Count work that an earlier run has done."""
        self.skipped += amount
        self.advance(amount)

    def log_step(self, row: Mapping[str, float]) -> None:
        """Count one training step and show its losses."""
        columns = [*loss_columns(row), *(name for name in ("perplexity", KEEP_RATE, VALIDATION_RSUM) if name in row)]
        if self.done == 0 and "step" in row:
            self.done = self.skipped = int(row["step"])
            self.bar.initial = self.bar.n = self.done
        self.advance(1, " ".join(f"{name} {row[name]:.3f}" for name in columns))
