"""Stores the metadata of a sample as JSON that every reader accepts."""

import json
import re
from collections.abc import Mapping
from typing import Any

MAX_CHARS = 10_000  # of all metadata of a sample, because every search result carries them
MAX_DEPTH = 20  # of nested lists and objects
SURROGATE = re.compile("[\ud800-\udfff]")


def metadata_json(metadata: Mapping[str, Any]) -> str | None:
    """Convert the fields to a JSON object; None if there are none.

    What JSON lacks is replaced: NaN and infinity by null, bytes that are not UTF-8 by escape sequences, dates and other
    objects by their text. A field that is nested too deeply, or no longer fits in `MAX_CHARS`, is left out.
    """
    fields: dict[str, str] = {}
    room = MAX_CHARS
    for name, value in metadata.items():
        if not _is_shallow(value, MAX_DEPTH):
            continue
        field = f"{_to_json(name)}: {_to_json(value)}"
        if len(field) <= room:
            fields[name], room = field, room - len(field)
    return f"{{{', '.join(fields.values())}}}" if fields else None


def _to_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    strict = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    # A lone surrogate becomes the text of its escape: readers would turn a real escape into a lone surrogate again.
    return SURROGATE.sub(lambda surrogate: f"\\\\u{ord(surrogate[0]):04x}", strict)


def _is_shallow(value: object, depth: int) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return depth > 0 and all(_is_shallow(part, depth - 1) for part in parts)
