"""Writes docs/params.md from the configuration classes, and the table of renamed keys in the migration note.

`python -m tools.params_reference` writes both; `--check` only says whether they are up to date.
"""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from cots.config.params import Params
from cots.config.renamed import RENAMED, RENAMED_VALUES
from cots.config.render import flow_style
from cots.config_base import Config

REFERENCE, MIGRATION = Path("docs/params.md"), Path("docs/migration-0.2.md")
BEGIN, END = "<!-- renamed keys: begin -->\n", "<!-- renamed keys: end -->\n"
HEAD = """# Parameters

Every number of a run is in `params.yaml`. `cots init` writes the complete file: the defaults below, with the changes
of a preset. A key that is left out has its default. Unknown keys and wrong values are reported all at once. A key of
0.1.0 is read, with a warning ([migration-0.2.md](migration-0.2.md)).

Where a value stands for the paper's, a letter gives its status: V read in a public source about COTS, L read in code of
the same authors, M recalled and unverified, D this project's decision.

`python -m tools.params_reference` writes this file from `cots/config/`.
"""
FOOT = """
## OpenAI's dVAE in place of our own

The weights are those of github.com/openai/DALL-E; nothing here downloads them.

    dvae:
      kind: openai
      path: data/openai-dvae           # encoder.pkl and decoder.pkl
      sha256: "..."                    # cat encoder.pkl decoder.pkl | sha256sum
    tokenize:
      batch_size: 16                   # at full resolution an image of 112 pixels takes 13 MB a layer
"""


def reference() -> str:
    """The whole of docs/params.md."""
    default = Params()
    parts = [HEAD]
    for name in default.dump_all():
        key = next(key for key, field in Params.model_fields.items() if (field.alias or key) == name)
        field = Params.model_fields[key]
        parts.append(f"## {name}\n\n{field.description}\n")
        parts += ["\n".join(_table(kind, label)) + "\n" for label, kind in _kinds(name, field)]
    return "\n".join(parts) + FOOT


def _kinds(name: str, field: FieldInfo) -> Iterator[tuple[str, Config | type[Config]]]:
    """The mapping of a section, or one for each of its kinds."""
    if name == "finetune":
        yield "", field.default["image-text"]
        return
    members = [kind for kind in _members(field.annotation) if isinstance(kind, type) and issubclass(kind, Config)]
    for kind in members:
        chosen = field.default if isinstance(field.default, kind) else kind
        yield (f"`kind: {kind.model_fields['kind'].default}`" if len(members) > 1 else ""), chosen


def _table(config: Config | type[Config], label: str) -> Iterator[str]:
    if label:
        yield f"{label}\n"
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    yield from _rows(config, "")


def _rows(config: Config | type[Config], prefix: str) -> Iterator[str]:
    kind = config if isinstance(config, type) else type(config)
    for name, field in kind.model_fields.items():
        value = field.default if isinstance(config, type) else getattr(config, name)
        nested = [kind for kind in _members(field.annotation) if isinstance(kind, type) and issubclass(kind, Config)]
        path = f"{prefix}{name}"
        shown = "required" if field.is_required() else "" if nested else f"`{flow_style(value)}`"
        yield f"| `{path}` | {_type(field, nested)} | {shown} | {_meaning(field)} |"
        for inner in nested:
            chosen = value if isinstance(value, inner) else inner
            of_kind = f" ({inner.model_fields['kind'].default})" if len(nested) > 1 else ""
            yield from (
                row.replace("`", f"`{path}.", 1).replace("` |", f"`{of_kind} |", 1) for row in _rows(chosen, "")
            )


def _meaning(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    since = f" Since {extra['since']}." if isinstance(extra, dict) and "since" in extra else ""
    return f"{field.description}{since}".replace("|", r"\|")


def _type(field: FieldInfo, nested: list[Any]) -> str:
    """Type and range of a key's values, in words."""
    if nested:
        return "one kind of" if len(nested) > 1 else "mapping"
    return _named(field.annotation, field.metadata)


def _named(annotation: Any, metadata: list[Any]) -> str:  # noqa: ANN401  a type
    if get_origin(annotation) is Annotated:
        return _named(get_args(annotation)[0], [*get_args(annotation)[1:], *metadata])
    if get_origin(annotation) in (Union, types.UnionType):
        return ", ".join(_named(member, metadata) for member in get_args(annotation))
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{flow_style(value)}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        inner = [member for member in get_args(annotation) if member is not Ellipsis]
        return f"list of {_named(inner[0], [])}"
    names = {"int": "integer", "float": "number", "str": "text", "bool": "true, false", "NoneType": "`null`"}
    origin = get_origin(annotation) or annotation
    text = {"dict": "mapping", "Path": "path"}.get(origin.__name__) or names[origin.__name__]
    return " ".join([text, *_bounds(metadata)]) if text in ("integer", "number") else text


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for bound in metadata:
        for kind, sign in ((annotated_types.Gt, ">"), (annotated_types.Ge, "≥"), (annotated_types.Lt, "<")):
            if isinstance(bound, kind):
                yield f"{sign} {_number(getattr(bound, kind.__name__.lower()))}"
        if isinstance(bound, annotated_types.Le):
            yield f"≤ {_number(bound.le)}"
        if isinstance(bound, FieldInfo):
            yield from _bounds(bound.metadata)


def _number(value: Any) -> str:  # noqa: ANN401  annotated_types' own
    return str(value) if isinstance(value, int) else f"{value:g}"


def _members(annotation: Any) -> list[Any]:  # noqa: ANN401  a type
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def renamed() -> str:
    """The table of renamed keys, in Markdown."""
    rows = ["| section | 0.1.0 | 0.2.0 |", "|---|---|---|"]
    for path, keys in RENAMED.items():
        if path.startswith("finetune.*"):
            continue  # the keys of pretrain
        section = path.replace("pretrain", "pretrain, finetune.*", 1)
        for first, present in keys.items():
            values = RENAMED_VALUES.get(present, {})
            rows.append(f"| {section} | `{first}` | `{present}` |")
            rows += [f"| {section} | `{first}: {a}` | `{present}: {b}` |" for a, b in values.items()]
    return "\n".join(rows) + "\n"


def migration(text: str) -> str:
    """The migration note with the current table between its marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + renamed() + "\n" + END + rest.partition(END)[2]


def main() -> None:
    """Write both files, or with `--check` say which is not up to date."""
    current = {REFERENCE: reference(), MIGRATION: migration(MIGRATION.read_text(encoding="utf8"))}
    if sys.argv[1:] != ["--check"]:
        for path, text in current.items():
            path.write_text(text, encoding="utf8")
        return
    stale = [str(path) for path, text in current.items() if path.read_text(encoding="utf8") != text]
    if stale:
        sys.exit(f"error: {' and '.join(stale)} are not what cots/config says: run `make fix`")


if __name__ == "__main__":
    main()
