"""Text from data in Markdown: what a caption says is shown, and neither a link nor a tag nor the end of a cell."""

import re

SPECIAL = re.compile(r"[\\`*_\[\]<>|#~&]")


def escape_markdown(text: str) -> str:
    """The text on one line, with a backslash before what Markdown would interpret."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
