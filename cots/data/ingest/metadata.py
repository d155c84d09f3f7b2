"""Stores the metadata of a sample as JSON that every reader accepts, and reads it again."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cots.errors import BadInput

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


def parse_metadata(text: object) -> dict[str, Any]:
    """The fields of a sample's metadata; none if it has no metadata.

    Raises:
        ValueError: the text is not a JSON object.
    """
    fields = json.loads(text) if isinstance(text, str) else {}
    if not isinstance(fields, dict):
        raise ValueError(f"metadata {text!r:.80} is not a JSON object")
    return fields


def field_text(value: object) -> str | None:
    """A field's value as people write it: texts as they are, other values as JSON, null as None."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def metadata_field(metadata: object, name: str) -> str | None:
    """One field of a sample's metadata as a text without white space around it; None where it is missing or blank."""
    return (field_text(parse_metadata(metadata).get(name)) or "").strip() or None


def metadata_column(metadata: Iterable[object], name: str) -> list[str | None]:
    """One field of all samples, as `metadata_field` gives it.

    Args:
        metadata: of each sample, as `metadata_json` wrote it.
        name: of the field.

    Raises:
        BadInput: no sample has it.
    """
    metadata = list(metadata)
    values = [metadata_field(of_sample, name) for of_sample in metadata]
    if all(value is None for value in values):
        names = dict.fromkeys(name for of_sample in metadata for name in parse_metadata(of_sample))
        raise BadInput(f"the samples have no column {name!r:.100}: they have {', '.join(names) or 'none':.1000}")
    return values


def _to_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    strict = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    # A lone surrogate becomes the text of its escape: readers would turn a real escape into a lone surrogate again.
    return SURROGATE.sub(lambda surrogate: f"\\\\u{ord(surrogate[0]):04x}", strict)


def _is_shallow(value: object, depth: int) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return depth > 0 and all(_is_shallow(part, depth - 1) for part in parts)
