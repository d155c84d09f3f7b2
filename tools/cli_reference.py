"""Writes docs/cli.md from the command line itself: `python -m tools.cli_reference`; `--check` only compares."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cots.cli import app

PAGE = Path(__file__).parents[1] / "docs/cli.md"
REMAKE = "python -m tools.cli_reference"
HEAD = f"""# Command line

Written by `{REMAKE}` from the help texts in `cots/cli/`: change those, not this page. Exit codes: 0 success, 1 the work
failed, 2 an argument or a file that cannot be used. An error is one line on standard error. `cots --install-completion`
lets the shell complete commands and options.
"""


def reference() -> str:
    """The page: every command that is not hidden, with its arguments, options and defaults."""
    return HEAD + "".join(_sections(typer.main.get_command(app), "cots"))


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` say whether it is up to date; the exit code."""
    text = reference()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf8") != text:
        print(f"docs/{PAGE.name} is not what the command line says: run `{REMAKE}`", file=sys.stderr)
        return 1
    return 0


def _sections(command: Any, name: str) -> Iterator[str]:  # noqa: ANN401  typer's commands are untyped
    """A command, and those below it."""
    context = command.context_class(command, info_name=name)
    level = "#" * (name.count(" ") + 2)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"\n{level} {name}\n\n{_joined(command.help or '')}\n\n    {usage}\n"
    records = [parameter.get_help_record(context) for parameter in command.params]
    if rows := [f"| `{names.replace('|', ' or ')}` | {meaning} |" for names, meaning in filter(None, records)]:
        yield "\n| | |\n|---|---|\n" + "\n".join(rows) + "\n"
    for below in getattr(command, "commands", {}).values():
        if not below.hidden:
            yield from _sections(below, f"{name} {below.name}")


def _joined(text: str) -> str:
    """Paragraphs whose lines are broken by the page's reader, not by the source's."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
