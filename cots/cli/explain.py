"""`cots explain`: where on a picture a model sees a text, and each of its words."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.addresses import CHAMPION
from cots.errors import BadInput


def explain(
    image: Annotated[Path, typer.Argument(help="The picture.")],
    text: Annotated[str, typer.Argument(help="What to look for on it.")],
    model: Annotated[str, typer.Option(help="A registered version, an MLflow or a model folder.")] = CHAMPION,
    out: Annotated[Path, typer.Option(help="The picture to write, by its suffix png, jpg or webp.")] = Path(
        "explained.png"
    ),
    max_pixels: Annotated[int, typer.Option(min=1, help="A larger picture is not opened.")] = 50_000_000,
) -> None:
    """Draw which parts of a picture speak for a text and for each of its words."""
    from cots.cli.result_grid import labelled_sheet, write_sheet
    from cots.data.image_decoding import UnusableImage, decode_image
    from cots.evaluation.explain import explain as explained
    from cots.evaluation.explain import overlay
    from cots.registry.loading import load_encoders

    if not text.strip():
        raise BadInput("the text is blank")
    try:
        picture = decode_image(image.expanduser().read_bytes(), max_pixels=max_pixels, min_side=1)
    except OSError as error:
        raise BadInput(f"cannot read the picture {image}: {error.strerror}") from None
    except UnusableImage as error:
        raise BadInput(f"{image} cannot be used: {error}") from None
    whole, *words = explained(load_encoders(model), [picture], text)
    drawn = [overlay(picture, found.patches[0], most=float(found.patches.max())) for found in (whole, *words)]
    labels = [("", "as it is"), ("", "the whole text"), *((f"{w.similarity:+.3f}", w.text) for w in words)]
    write_sheet(out, labelled_sheet([picture, *drawn], labels, title=text))
    typer.echo(f"similarity {whole.similarity:.3f}; the maps are in {out}")
