"""Text from data on a terminal: captions and names of files come from the web, and a terminal obeys what it is sent."""

# Control characters, which begin escape sequences; characters that reverse or break lines; halves of surrogate pairs,
# which cannot be printed at all.
UNSAFE = (
    *range(0x20),
    *range(0x7F, 0xA0),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
)
ESCAPES = {code: f"\\u{code:04x}" for code in UNSAFE}  # also valid in JSON
ESCAPES_BUT_NEWLINES = {code: escape for code, escape in ESCAPES.items() if code != ord("\n")}


def escape_controls(text: str) -> str:
    """The text with escapes such as those of JSON in place of what would command a terminal, newlines among it."""
    return text.translate(ESCAPES)


def escape_controls_in_lines(text: str) -> str:
    """The same for a text of several lines."""
    return text.translate(ESCAPES_BUT_NEWLINES)
