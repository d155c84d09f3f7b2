"""Splits of samples whose source names none."""

import hashlib

from pydantic import Field

from cots.config_base import Config, Fraction
from cots.data.samples import Split

HOLDOUT = "Fractions that become val and test where the source names no split."


class HoldoutConfig(Config):
    """Fractions of the samples that become val and test where the source names no split."""

    val: Fraction = Field(default=0.1, description="Fraction of the samples.")
    test: Fraction = Field(default=0.1, description="Fraction of the samples.")


def split_by_hash(name: str, *, seed: int, holdout: HoldoutConfig) -> Split:
    """The split of a sample whose source names none; it depends on the id and the seed alone.

    Args:
        name: the sample's id.
        seed: of the split.
        holdout: the fractions.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode(errors="backslashreplace")).digest()
    position = int.from_bytes(digest[:8]) / 2**64
    if position < holdout.test:
        return "test"
    return "val" if position < holdout.test + holdout.val else "train"
