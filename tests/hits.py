"""Comparison of search results."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest


def up_to_rounding(hits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Equal to the same hits with scores that differ in the last digits: another batch may sum in another order."""
    return [{**hit, "score": pytest.approx(hit["score"], abs=1e-5)} for hit in hits]
