"""Numbers rounded for files."""

from typing import Any

DIGITS = 6


def rounded(value: Any) -> Any:  # noqa: ANN401  JSON in, JSON out
    """Nested values with every float rounded to six decimal places."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value
