"""docs/stale.md: for each file of code, the stages that a change of it makes stale."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Stages = Mapping[str, Mapping[str, Any]]
TABLE = Path("docs/stale.md")
HEAD = """\
# What a change of code makes stale

Written by `python -m tools.stage_deps` from `dvc.yaml`; `make check` compares. ● The stage lists the file among its
`deps`, so any change of the file, even of a comment, makes the next `dvc repro` run it. ○ The stage depends on one of
these and runs only if that one's outputs changed. To keep results after a change: [operate.md](operate.md).
"""


def stages_of_file(file: str, stages: Stages) -> set[str]:
    """Stages that list the file, or a folder that contains it, among their `deps`."""
    paths = {file, *map(str, Path(file).parents)}
    return {name for name, stage in stages.items() if not paths.isdisjoint(map(str, stage["deps"]))}


def readers_by_stage(stages: Stages) -> dict[str, set[str]]:
    """By stage, the stages that read its outputs."""
    return {
        name: {
            other
            for other, reader in stages.items()
            if any(_overlap(out, str(dep)) for out in output_paths(stage) for dep in reader["deps"])
        }
        for name, stage in stages.items()
    }


def find_downstream(names: set[str], readers: Mapping[str, set[str]]) -> set[str]:
    """Stages that read, directly or through others, what the stages with these names write."""
    result: set[str] = set()
    waiting = list(names)
    while waiting:
        more = readers[waiting.pop()] - result
        result |= more
        waiting += more
    return result - names


def output_paths(stage: Mapping[str, Any]) -> list[str]:
    """Paths under `outs`, `metrics` and `plots`; an entry is a path, or a path with options."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, ())]
    return [str(path) for entry in entries for path in ([entry] if isinstance(entry, str) else entry)]


def stale_table(root: Path, stages: Stages, no_output: Mapping[str, str]) -> str:
    """The complete document.

    Args:
        root: the project's folder.
        stages: of dvc.yaml.
        no_output: modules that are left out, with their reasons.
    """
    files = {file: stages_of_file(file, stages) for file in list_code_files(root)}
    readers = readers_by_stage(stages)
    rows = [
        f"| `{file}` | {' | '.join(_mark(name, direct, find_downstream(direct, readers)) for name in stages)} |"
        for file, direct in files.items()
        if direct
    ]
    idle = [f"- `{file}`" for file, direct in files.items() if not direct]
    lines = [HEAD, f"| file | {' | '.join(stages)} |", f"|---|{':-:|' * len(stages)}", *rows, ""]
    lines += [
        "## Declared to change no output",
        "",
        "These modules are listed in `pyproject.toml` under `tool.cots.stage-deps`.",
        "",
    ]
    lines += [f"- `{module}`: {reason}" for module, reason in no_output.items()]
    lines += ["", "## Files that make no stage stale", "", *idle]
    return "\n".join(lines) + "\n"


def list_code_files(root: Path) -> list[str]:
    """Every file of the packages, relative to `root`."""
    return sorted(
        str(path.relative_to(root))
        for package in ("cots", "pipelines")
        for path in (root / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )


def _mark(name: str, direct: set[str], indirect: set[str]) -> str:
    return "●" if name in direct else "○" if name in indirect else ""


def _overlap(out: str, dep: str) -> bool:
    """Whether one path equals or contains the other; `${...}` matches any one name, and by itself no output."""
    first, second = (["*" if part.startswith("${") else part for part in path.split("/")] for path in (out, dep))
    return second != ["*"] and all(a == b or "*" in (a, b) for a, b in zip(first, second, strict=False))
