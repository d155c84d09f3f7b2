"""Writes the code under each stage's `deps` in dvc.yaml: exactly the files that can change what the stage makes.

`python -m tools.stage_deps` rewrites those lines and the table docs/stale.md; `--check` only says what differs. What is
left out of the closures, and why, stands in pyproject.toml under `tool.cots.stage-deps`.
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
    """What pyproject.toml says about the closures.

    Attributes:
        no_output: modules that change nothing that a stage makes, each with the reason.
        ships: by stage, modules whose whole closure the stage copies into what it makes.
    """

    no_output: Mapping[str, str]
    ships: Mapping[str, list[str]]

    @classmethod
    def load(cls, root: Path) -> Self:
        """Read the table of the project in `root`."""
        table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["tool"]["cots"]["stage-deps"]
        return cls(no_output=table["no-output"], ships=table["ships"])


def load_stages(root: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml by name; of a `foreach` stage what stands under `do`."""
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in pipeline.items()}


def code_of(name: str, stage: Mapping[str, Any], declared: Declared, root: Path) -> list[str]:
    """Files whose code can change what a stage makes, relative to `root`, sorted.

    Args:
        name: of the stage; stage: its entry in dvc.yaml, whose `cmd` names the modules to start from.
        declared: what is left out, and what the stage ships.
        root: the project's folder.
    """
    found = import_closure(MODULE.findall(stage["cmd"]), root, leave_out=declared.no_output)
    shipped = import_closure(declared.ships.get(name, ()), root)
    needed = {file for file in (*found.values(), *shipped.values()) if holds_code(file)}
    return sorted(str(file.relative_to(root)) for file in needed | data_files(needed))


def holds_code(file: Path) -> bool:
    """Whether a file holds more than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_text(encoding="utf8")).body)


def with_code(text: str, code: Mapping[str, list[str]]) -> str:
    """The text of dvc.yaml with other code under `deps`; all other lines, comments too, stay as they are.

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
    """Write dvc.yaml and the table, or with `--check` tell in one line each what differs; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.stage_deps", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where something differs")
    check, root = parser.parse_args(arguments).check, Path.cwd()
    differences = list(outdated(root, write=not check))
    for line in differences:
        print(f"{line} (`make fix` writes it)" if check else f"written: {line}", file=sys.stderr)
    return int(check and bool(differences))


def outdated(root: Path, *, write: bool) -> Iterator[str]:
    """One line for each stage whose `deps` are not its code, and one for the table; mended where `write` says so."""
    declared, stages = Declared.load(root), load_stages(root)
    code = {name: code_of(name, stage, declared, root) for name, stage in stages.items()}
    for name, stage in stages.items():
        listed = {dep for dep in stage["deps"] if CODE_LINE.fullmatch(f"- {dep}")}
        more, less = sorted(set(code[name]) - listed), sorted(listed - set(code[name]))
        if more or less:
            told = [f"{word} {', '.join(files)}" for word, files in (("lacks", more), ("need not have", less)) if files]
            yield f"dvc.yaml: deps of {name}: {'; '.join(told)}"
    pipeline, table = root / "dvc.yaml", root / TABLE
    if write:
        pipeline.write_text(with_code(pipeline.read_text(encoding="utf8"), code), encoding="utf8")
    made = stale_table(root, load_stages(root) if write else stages, declared.no_output)
    if not table.is_file() or table.read_text(encoding="utf8") != made:
        yield f"{TABLE}: another table than dvc.yaml's"
        if write:
            table.write_text(made, encoding="utf8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
