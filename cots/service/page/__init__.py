"""The search page: static files of this package; nothing is loaded from other hosts."""

from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

from fastapi import APIRouter, Response

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/api.js": ("api.js", "text/javascript; charset=utf-8"),
    "/query.js": ("query.js", "text/javascript; charset=utf-8"),
    "/keyboard.js": ("keyboard.js", "text/javascript; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/cards.js": ("cards.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def page_routes() -> APIRouter:
    """The routes of the search page."""
    return file_routes(__name__, FILES)


def file_routes(package: str, files: Mapping[str, tuple[str, str]]) -> APIRouter:
    """A route for each file of a package, read once; these routes are not part of OpenAPI.

    Args:
        package: dotted name.
        files: by path of the route, the file's name and media type.
    """
    routes = APIRouter()
    folder = resources.files(package)
    for path, (name, media_type) in files.items():
        routes.get(path, include_in_schema=False)(_file(folder.joinpath(name).read_bytes(), media_type))
    return routes


def _file(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return file
