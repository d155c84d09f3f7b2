"""Renders a complete parameter file: every key with its value, and a comment where a key occurs first."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic.fields import FieldInfo

from cots.config.params import Params
from cots.config_base import Config

WIDTH, COMMENT_COLUMN = 120, 37  # of a line; of comments, if the value is short enough
MAX_FLOW = 60  # characters of a mapping or list that is written on one line
PLAIN = re.compile(r"[A-Za-z][\w./@-]*( [\w./@-]+)*")  # text that needs no quotes in YAML, except reserved words
RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def render(params: Params, header: str) -> str:
    """The text of a parameter file; reading it gives the same parameters.

    Args:
        params: its content.
        header: comment lines at the beginning.
    """
    shown, blocks = set[str](), list[str]()  # comments that need not be repeated
    for name in params.dump_all():
        if name != "finetune":  # its keys are those of pretrain
            shown.clear()
        key = next(key for key, field in Params.model_fields.items() if (field.alias or key) == name)
        blocks.append("\n".join(_render_key(name, getattr(params, key), Params.model_fields[key], "", shown)))
    return "\n\n".join([header.rstrip("\n") + "\n" + blocks[0], *blocks[1:]]) + "\n"


def first_sentence(description: str) -> str:
    """The first sentence of a description without its full stop: the comment of the key."""
    return re.split(r"\.(?= |$)", description, maxsplit=1)[0]


def _render_key(name: str, value: object, field: FieldInfo | None, indent: str, shown: set[str]) -> Iterator[str]:
    """The lines of a key, with its comment unless it was shown before."""
    comment = first_sentence(field.description or "") if field else ""
    comment = "" if f"{name}: {comment}" in shown else comment
    shown.add(f"{name}: {comment}")
    text = flow_style(value)
    if isinstance(value, Config | Mapping) and (len(text) > MAX_FLOW or not indent or _has_sections(value)):
        yield from _render_line(f"{indent}{name}:", comment)
        for key, inner in _items(value):
            yield from _render_key(key, inner, _field(value, key), indent + "  ", shown)
        return
    yield from _render_line(f"{indent}{name}: {text}", comment)


def _render_line(text: str, comment: str) -> Iterator[str]:
    """The comment beside the text if it fits there, otherwise above it."""
    if not comment:
        yield text
        return
    beside = f"{text.ljust(COMMENT_COLUMN - 2)}  # {comment}"
    if len(beside) <= WIDTH:
        yield beside
        return
    mark = text[: len(text) - len(text.lstrip())] + "# "
    yield from textwrap.wrap(comment, WIDTH, initial_indent=mark, subsequent_indent=mark, break_long_words=False)
    yield text


def flow_style(value: object) -> str:
    """A value on one line of YAML, in flow style."""
    if isinstance(value, Config | Mapping):
        return "{" + ", ".join(f"{key}: {flow_style(inner)}" for key, inner in _items(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow_style, value)) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return _format_float(value)
    if isinstance(value, int):
        return str(value)
    text = str(value)
    return text if PLAIN.fullmatch(text) and text.lower() not in RESERVED else json.dumps(text, ensure_ascii=False)


def _format_float(value: float) -> str:
    """Digits without an exponent, which YAML parsers treat differently."""
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else f"{text}.0"


def _items(value: Config | Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values, without those that pydantic excludes from a dump."""
    if not isinstance(value, Config):
        yield from value.items()
        return
    for key, inner in value:
        exclude_if = type(value).model_fields[key].exclude_if
        if exclude_if is None or not exclude_if(inner):
            yield key, inner


def _field(value: Config | Mapping[Any, Any], key: str) -> FieldInfo | None:
    return type(value).model_fields[key] if isinstance(value, Config) else None


def _has_sections(value: Config | Mapping[Any, Any]) -> bool:
    return any(isinstance(inner, Config) for _, inner in _items(value))
