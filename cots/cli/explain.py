"""`cots explain`: attention maps of an image for a text and each of its words."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.addresses import CHAMPION_URI
from cots.data.limits import MAX_PIXELS
from cots.errors import BadInput


def explain(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    text: Annotated[str, typer.Argument(help="Text to find in the image.")],
    model: Annotated[
        str, typer.Option(help="A registered version (models:/...), a model folder, or a checkpoint of CLIP or SigLIP.")
    ] = CHAMPION_URI,
    out: Annotated[Path, typer.Option(help="Image file to write: png, jpg or webp.")] = Path("explained.png"),
    max_pixels: Annotated[int, typer.Option(min=1, help="An image with more pixels is refused.")] = MAX_PIXELS,
) -> None:
    """Draw which parts of an image match a text and each of its words."""
    from cots.cli.result_grid import labelled_grid, write_grid
    from cots.data.image_decoding import UnusableImage, decode_image
    from cots.evaluation.explain import explain as similarity_maps
    from cots.evaluation.explain import overlay
    from cots.tracking.loading import load_encoders

    if not text.strip():
        raise BadInput("the text is blank")
    try:
        decoded = decode_image(image.expanduser().read_bytes(), max_pixels=max_pixels, min_side=1)
    except OSError as error:
        raise BadInput(f"cannot read the image {image}: {error.strerror}") from None
    except UnusableImage as error:
        raise BadInput(f"{image} cannot be used: {error}") from None
    text_map, *word_maps = similarity_maps(load_encoders(model), [decoded], text)
    maps = (text_map, *word_maps)
    overlays = [overlay(decoded, map_.patches[0], max_relevance=float(map_.patches.max())) for map_ in maps]
    labels = [("", "as it is"), ("", "the whole text"), *((f"{w.similarity:+.3f}", w.text) for w in word_maps)]
    write_grid(out, labelled_grid([decoded, *overlays], labels, title=text))
    typer.echo(f"similarity {text_map.similarity:.3f}; the maps are in {out}")
