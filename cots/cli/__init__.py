"""The console script `cots`. Each command imports what it needs when it runs, so `cots --help` is instant."""

import gc
import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from cots.cli.compare import compare
from cots.cli.data import data
from cots.cli.doctor import doctor
from cots.cli.drift import drift
from cots.cli.evaluate import evaluate
from cots.cli.explain import explain
from cots.cli.export import export
from cots.cli.hard_negatives import hard_negatives
from cots.cli.index import index
from cots.cli.init import init, use
from cots.cli.ocr import ocr
from cots.cli.registry import registry
from cots.cli.search import search
from cots.cli.serve import serve
from cots.cli.summary import summary
from cots.cli.suspects import suspects
from cots.errors import BadInput, exit_on_error

GC_THRESHOLD = 100_000  # new objects between two garbage collections; Python's default is 700

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    init,
    ocr,
    index,
    search,
    serve,
    evaluate,
    compare,
    explain,
    suspects,
    hard_negatives,
    drift,
    summary,
    doctor,
):
    app.command()(command)
app.command(hidden=True)(use)
app.add_typer(registry, name="registry")
app.add_typer(data, name="data")
app.add_typer(export, name="export")


def show_version(requested: bool) -> None:
    """Print the version of this package and exit."""
    if requested:
        typer.echo(f"cots {version('cots')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Two-stream vision-language retrieval: train, search, evaluate, deploy."""


def main() -> None:
    """Run the command line; input that cannot be used prints one line and exits with code 2."""
    gc.set_threshold(GC_THRESHOLD)  # collecting garbage among freshly imported modules would take a tenth of the start
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a caption may have letters that the terminal lacks
    with exit_on_error():
        try:
            code = app(prog_name="cots", standalone_mode=False)
        except typer.TyperException as error:
            message = error.format_message()
            if "\n" in message:  # the help, because no command was given
                print(message, file=sys.stderr)
                sys.exit(2)
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "cots"
            raise BadInput(f"{message} (see `{command} --help`)") from None
        except typer.Abort:
            sys.exit(1)
        sys.stdout.flush()
        sys.exit(code)
