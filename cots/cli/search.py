"""`cots search`: finds images, videos or captions by a text or an image."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cots.cli.addresses import CHAMPION_URI
from cots.cli.tables import table
from cots.errors import BadInput
from cots.terminal import escape_controls_in_lines

CAPTION_CHARS = 70
GRID_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def search(
    text: Annotated[str | None, typer.Argument(help="Text to search by.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image file to search by, instead of a text.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of results.")] = 10,
    media: Annotated[
        Literal["any", "image", "video", "text"],
        typer.Option(help="Kind of results: images, videos, captions (text), or images and videos (any)."),
    ] = "any",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Give only items whose column has this value; repeat it for other values of the column, any of which "
            "may be found, and for other columns, each of which must fit.",
        ),
    ] = None,
    minus: Annotated[list[str] | None, typer.Option(help="A text to keep away from; repeat it for more.")] = None,
    min_score: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Leave results with a lower score out.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A version of cots-index, or a folder such as package/index.")
    ] = CHAMPION_URI,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    save_grid: Annotated[
        Path | None,
        typer.Option(help="Also write the results as one image (.png, .jpg, .webp), with the best frames of videos."),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(hidden=True, help="The old name of --save-grid.")] = None,
) -> None:
    """Find images, videos or captions by a text or an image."""
    query = _query(text, image)
    grid = save_grid or sheet
    if grid:
        _check_grid(grid)
    values = _values_by_column(where or [])
    from cots.registry.packaged import open_search
    from cots.search_engine.queries import parse_where

    with open_search(model, texts_only=image is None) as deployed:
        filters = parse_where(values)
        [results] = deployed.search([query], k=k, media=media, minus=minus or (), min_score=min_score, where=filters)
        typer.echo(_format_json(results) if as_json else _format_results(results))
        if not results:
            typer.echo("nothing in the index meets the conditions", err=True)
        if grid:
            from cots.cli.result_grid import result_grid, write_grid

            images = deployed.engine.result_images(results)
            write_grid(grid, result_grid(results, images, title=text or f"like {image}"))
            typer.echo(f"the images are in {grid}", err=True)


def _query(text: str | None, image: Path | None) -> dict[str, object]:
    if (text is None) == (image is None):
        raise BadInput("give either a text or --image FILE")
    if image is None:
        return {"text": text}
    try:
        return {"image": image.expanduser().read_bytes()}
    except OSError as error:
        raise BadInput(f"cannot read the image {image}: {error.strerror}") from None


def _values_by_column(filters: list[str]) -> dict[str, list[str]]:
    """The values of each column, of arguments such as `split=test`."""
    values: dict[str, list[str]] = {}
    for text in filters:
        column, separator, value = text.partition("=")
        if not separator:
            raise BadInput(f"--where {text!r} is not COLUMN=VALUE, such as split=test")
        values.setdefault(column, []).append(value)
    return values


def _check_grid(path: Path) -> None:
    """Refuse a path that no grid can be written to, before a model is loaded."""
    if path.suffix.lower() not in GRID_SUFFIXES:
        raise BadInput(f"cannot write {path}: the file name must end in {', '.join(GRID_SUFFIXES)}")
    if not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: there is no folder {path.parent}")


def _format_json(results: list[dict[str, Any]]) -> str:
    return escape_controls_in_lines(json.dumps(results, ensure_ascii=False, indent=2))


def _format_results(results: list[dict[str, Any]]) -> str:
    """The results as a table, with the best frame of each video."""
    columns: dict[str, list[object]] = {
        "rank": [hit["rank"] for hit in results],
        "score": [f"{hit['score']:.3f}" for hit in results],
        "id": [hit["id"] for hit in results],
    }
    if any(hit["media"] == "video" for hit in results):
        columns["frame"] = [hit["frame"] if hit["media"] == "video" else "" for hit in results]
    columns["caption"] = [_caption(hit) for hit in results]
    return table(list(columns), list(zip(*columns.values(), strict=True)))


def _caption(hit: dict[str, Any]) -> str:
    from cots.search_engine.engine import caption_of

    caption = " ".join((caption_of(hit) or "").split())
    return caption if len(caption) <= CAPTION_CHARS else caption[: CAPTION_CHARS - 1] + "…"
