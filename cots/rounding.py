"""Figures rounded for files."""

from typing import Any

DIGITS = 6


def rounded(value: Any) -> Any:  # noqa: ANN401  JSON in, JSON out
    """Nested values with every float cut to six digits after the point."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value
