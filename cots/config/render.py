"""A whole, commented parameter file: every key with its value, and what it means where it comes first."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic.fields import FieldInfo

from cots.config.params import Params
from cots.config_base import Config

WIDTH, COLUMN = 120, 37  # of a line; where comments begin, if the value leaves room
FLOW = 60  # characters of a mapping or list that stays in one line
PLAIN = re.compile(r"[A-Za-z][\w./@-]*( [\w./@-]+)*")  # text that YAML reads as itself, but for the words below
WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def render(params: Params, header: str) -> str:
    """The text of a parameter file; reading it gives the same parameters.

    Args:
        params: what it holds.
        header: comment lines that come first.
    """
    told, blocks = set[str](), list[str]()
    for name in params.whole():
        if name != "finetune":  # whose keys are those of pretrain
            told.clear()
        key = next(key for key, field in Params.model_fields.items() if (field.alias or key) == name)
        blocks.append("\n".join(_entry(name, getattr(params, key), Params.model_fields[key], "", told)))
    return "\n\n".join([header.rstrip("\n") + "\n" + blocks[0], *blocks[1:]]) + "\n"


def first_sentence(description: str) -> str:
    """The part of a description that stands beside the key, without its full stop."""
    return re.split(r"\.(?= |$)", description, maxsplit=1)[0]


def _entry(name: str, value: object, field: FieldInfo | None, indent: str, told: set[str]) -> Iterator[str]:
    """The lines of a key; its comment the first time that the file says it."""
    comment = first_sentence(field.description or "") if field else ""
    comment = "" if f"{name}: {comment}" in told else comment
    told.add(f"{name}: {comment}")
    text = flow(value)
    if isinstance(value, Config | Mapping) and (len(text) > FLOW or not indent or _holds_sections(value)):
        yield from _line(f"{indent}{name}:", comment)
        for key, inner in _items(value):
            yield from _entry(key, inner, _field(value, key), indent + "  ", told)
        return
    yield from _line(f"{indent}{name}: {text}", comment)


def _line(text: str, comment: str) -> Iterator[str]:
    """The comment behind the text where it fits, else above it."""
    if not comment:
        yield text
        return
    beside = f"{text.ljust(COLUMN - 2)}  # {comment}"
    if len(beside) <= WIDTH:
        yield beside
        return
    mark = text[: len(text) - len(text.lstrip())] + "# "
    yield from textwrap.wrap(comment, WIDTH, initial_indent=mark, subsequent_indent=mark, break_long_words=False)
    yield text


def flow(value: object) -> str:
    """A value in one line of YAML."""
    if isinstance(value, Config | Mapping):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in _items(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int):
        return str(value)
    text = str(value)
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else json.dumps(text, ensure_ascii=False)


def _number(value: float) -> str:
    """Digits without an exponent, which readers of YAML understand in different ways."""
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else f"{text}.0"


def _items(value: Config | Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The keys that a dump has too: one that is left out at its default is no part of a file."""
    if not isinstance(value, Config):
        yield from value.items()
        return
    for key, inner in value:
        left_out = type(value).model_fields[key].exclude_if
        if left_out is None or not left_out(inner):
            yield key, inner


def _field(value: Config | Mapping[Any, Any], key: str) -> FieldInfo | None:
    return type(value).model_fields[key] if isinstance(value, Config) else None


def _holds_sections(value: Config | Mapping[Any, Any]) -> bool:
    return any(isinstance(inner, Config) for _, inner in _items(value))
