"""Text from data in CSV files that people open in a spreadsheet, which computes cells that begin like a formula."""

import re

FORMULA = re.compile(r"^(?=[=+\-@\t\r'])")
ESCAPED = re.compile(r"^'(?=[=+\-@\t\r'])")


def escape_formula(text: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet would compute it."""
    return FORMULA.sub("'", text)


def unescape_formula(text: str) -> str:
    """The text that `escape_formula` was given."""
    return ESCAPED.sub("", text)
