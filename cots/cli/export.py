"""`cots export`: encoders in formats that run without this project."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.addresses import CHAMPION_URI

export = typer.Typer(help="Encoders in formats that run without this project.", no_args_is_help=True)


@export.command()
def onnx(
    out: Annotated[Path, typer.Argument(help="Folder to write: image.onnx, text.onnx, model.json and tokenizer.")],
    model: Annotated[
        str, typer.Option(help="A registered version (models:/...), a model folder, or a checkpoint of CLIP or SigLIP.")
    ] = CHAMPION_URI,
) -> None:
    """Write both encoders as ONNX; needs `pip install cots[onnx]`."""
    from cots.api.model import load

    load(model).export_onnx(out)
    typer.echo(f"{out} holds image.onnx and text.onnx, with configuration and tokenizer")
