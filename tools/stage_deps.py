"""Writes the code files under each stage's `deps` in dvc.yaml: exactly those that can change the stage's output.

`python -m tools.stage_deps` rewrites those lines and the table docs/stale.md; `--check` only reports differences.
pyproject.toml lists under `tool.cots.stage-deps` which modules are left out, and why.
"""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from cots.import_closure import data_files, import_closure
from tools.stale_table import TABLE, stale_table

PACKAGES = "cots|pipelines"
MODULE = re.compile(rf"\b(?:{PACKAGES})(?:\.\w+)+")
CODE_LINE = re.compile(rf" *- (?:{PACKAGES})(?:/\S*)?\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The table `tool.cots.stage-deps` of pyproject.toml.

    Attributes:
        no_output: modules that cannot change a stage's output, each with the reason.
        ships: by stage, modules that the stage copies into its output, with everything that they import.
    """

    no_output: Mapping[str, str]
    ships: Mapping[str, list[str]]

    @classmethod
    def load(cls, root: Path) -> Self:
        """Read the table of the project in `root`."""
        table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["tool"]["cots"]["stage-deps"]
        return cls(no_output=table["no-output"], ships=table["ships"])


def load_stages(root: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml by name; for a `foreach` stage its `do`."""
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in pipeline.items()}


def stage_code(name: str, stage: Mapping[str, Any], declared: Declared, root: Path) -> list[str]:
    """Files whose code can change a stage's output, relative to `root`, sorted.

    Args:
        name: of the stage; stage: its entry in dvc.yaml, whose `cmd` names the modules to start from.
        declared: modules that are left out, and modules that the stage ships.
        root: the project's folder.
    """
    closure = import_closure(MODULE.findall(stage["cmd"]), root, leave_out=declared.no_output)
    shipped = import_closure(declared.ships.get(name, ()), root)
    needed = {file for file in (*closure.values(), *shipped.values()) if has_code(file)}
    return sorted(str(file.relative_to(root)) for file in needed | data_files(needed))


def has_code(file: Path) -> bool:
    """Whether a file holds more than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_text(encoding="utf8")).body)


def replace_code_deps(text: str, code: Mapping[str, list[str]]) -> str:
    """The text of dvc.yaml with these code files under `deps`; all other lines, comments too, are unchanged.

    Args:
        text: of dvc.yaml, in which lists are indented below their key.
        code: by stage, the files.
    """
    lines: list[str] = []
    stage, inside = "", False
    for line in text.splitlines():
        if name := re.fullmatch(r"  (\w+):.*", line):
            stage, inside = name[1], False
        elif re.fullmatch(r" +deps:", line):
            inside = True
        elif inside and not line.lstrip().startswith(("- ", "#")):
            lines += [f"{' ' * (len(line) - len(line.lstrip()) + 2)}- {file}" for file in code[stage]]
            inside = False
        if not (inside and CODE_LINE.fullmatch(line)):
            lines.append(line)
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write dvc.yaml and the table, or with `--check` print each difference in a line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.stage_deps", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something differs")
    check, root = parser.parse_args(arguments).check, Path.cwd()
    differences = list(update_outdated(root, write=not check))
    for line in differences:
        print(f"{line} (`make fix` writes it)" if check else f"written: {line}", file=sys.stderr)
    return int(check and bool(differences))


def update_outdated(root: Path, *, write: bool) -> Iterator[str]:
    """A line for each stage whose `deps` differ from its code, and one for the table; with `write`, update both."""
    declared, stages = Declared.load(root), load_stages(root)
    code = {name: stage_code(name, stage, declared, root) for name, stage in stages.items()}
    for name, stage in stages.items():
        listed = {dep for dep in stage["deps"] if CODE_LINE.fullmatch(f"- {dep}")}
        more, less = sorted(set(code[name]) - listed), sorted(listed - set(code[name]))
        if more or less:
            changes = (f"{verb} {', '.join(files)}" for verb, files in (("add", more), ("remove", less)) if files)
            yield f"dvc.yaml: deps of {name}: {'; '.join(changes)}"
    pipeline, table = root / "dvc.yaml", root / TABLE
    if write:
        pipeline.write_text(replace_code_deps(pipeline.read_text(encoding="utf8"), code), encoding="utf8")
    text = stale_table(root, load_stages(root) if write else stages, declared.no_output)
    if not table.is_file() or table.read_text(encoding="utf8") != text:
        yield f"{TABLE}: differs from dvc.yaml"
        if write:
            table.write_text(text, encoding="utf8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
