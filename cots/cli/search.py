"""`cots search`: pictures for a text or a picture, from the deployed version."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cots.cli.tables import table
from cots.errors import BadInput

CAPTION_CHARS = 70


def search(
    text: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to look for instead of a text.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many results.")] = 10,
    model: Annotated[
        str, typer.Option(help="A version of cots-index, or a folder such as package/index.")
    ] = "models:/cots-index@champion",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find pictures by a text or by a picture."""
    query = _query(text, image)
    from cots.serving.loading import load_search

    [results] = load_search(model).predict([query], params={"k": k})
    typer.echo(json.dumps(results, ensure_ascii=False, indent=2) if as_json else _shown(results))


def _query(text: str | None, image: Path | None) -> dict[str, object]:
    if (text is None) == (image is None):
        raise BadInput("give either a text or --image FILE")
    if image is None:
        return {"text": text}
    try:
        return {"image": image.expanduser().read_bytes()}
    except OSError as error:
        raise BadInput(f"cannot read the picture {image}: {error.strerror}") from None


def _shown(results: list[dict[str, Any]]) -> str:
    rows = [[hit["rank"], f"{hit['score']:.3f}", hit["id"], _caption(hit)] for hit in results]
    return table(["rank", "score", "id", "caption"], rows)


def _caption(hit: dict[str, Any]) -> str:
    caption = " ".join(hit["captions"][0].split())
    return caption if len(caption) <= CAPTION_CHARS else caption[: CAPTION_CHARS - 1] + "…"
