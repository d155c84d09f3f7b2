"""Metadata of a sample as JSON that every reader takes."""

import json
import re
from collections.abc import Mapping
from typing import Any

MAX_CHARS = 10_000  # of all metadata of a sample, which every result of a search carries
MAX_DEPTH = 20  # of lists and objects in each other
SURROGATE = re.compile("[\ud800-\udfff]")


def metadata_json(metadata: Mapping[str, Any]) -> str | None:
    """The fields as a JSON object; None without any.

    What JSON lacks becomes null (NaN, infinity), escape sequences (bytes that are not UTF-8) or text (dates and other
    objects). A field that is nested too deeply, or does not fit in `MAX_CHARS` beside those before it, is left out.
    """
    fields: dict[str, str] = {}
    left = MAX_CHARS
    for name, value in metadata.items():
        if not _is_shallow(value, MAX_DEPTH):
            continue
        field = f"{_to_json(name)}: {_to_json(value)}"
        if len(field) <= left:
            fields[name], left = field, left - len(field)
    return f"{{{', '.join(fields.values())}}}" if fields else None


def _to_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    strict = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    # Half of a pair becomes text: its own escape would be valid JSON, and the half again for who reads it.
    return SURROGATE.sub(lambda half: f"\\\\u{ord(half[0]):04x}", strict)


def _is_shallow(value: object, depth: int) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return depth > 0 and all(_is_shallow(part, depth - 1) for part in parts)
