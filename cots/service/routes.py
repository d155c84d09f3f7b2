"""The service's addresses."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from starlette.background import BackgroundTask

from cots.search.queries import Query as SearchQuery
from cots.service import schemas
from cots.service.batching import DynamicBatcher
from cots.service.errors import RequestRefused
from cots.service.images import FORMATS, ImageReader
from cots.service.lineage import item_lineage, version_lineage
from cots.service.loaded_version import LoadedVersion, VersionView
from cots.service.metrics import ServiceMetrics
from cots.service.query_log import QueryLogWriter
from cots.service.version_manager import VersionManager

WORDS = {
    400: "the Host header or the request is wrong",
    401: "the token is missing or wrong",
    404: "there is no such thing",
    408: "the body was too slow",
    413: "the body is too large",
    422: "the query cannot be one",
    429: "too many queries at a time",
    500: "the service failed",
    503: "no version is loaded yet",
}
PICTURE_BODY = {f"image/{kind.lower()}": {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS}
PREVIEW_CACHE = "private, max-age=3600"  # seconds; a version's previews do not change


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these statuses carry one sentence."""
    return {status: {"model": schemas.Refusal, "description": WORDS[status]} for status in (400, 401, *statuses, 500)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the addresses stand on; their handlers are its methods.

    Attributes:
        deployment: the version that answers.
        batcher: encodes queries together.
        pictures: opens those that are sent.
        meters: shown at `/metrics`.
        log: of the queries, if there is one.
    """

    deployment: VersionManager
    batcher: DynamicBatcher
    pictures: ImageReader
    meters: ServiceMetrics
    log: QueryLogWriter | None

    async def search(self, query: Annotated[schemas.AnyQuery, Body()]) -> Response:
        """What is most similar to a text, or to a picture in base64."""
        started, deployed = time.perf_counter(), self._deployed()
        if isinstance(query, schemas.TextQuery):
            return await self._answer(deployed, SearchQuery(query.text, query.k, query.media), started)
        picture = await self.pictures(deployed, query.image)
        return await self._answer(deployed, SearchQuery(picture, query.k, query.media), started)

    async def search_image(self, request: Request, asked: Annotated[schemas.SearchParameters, Query()]) -> Response:
        """What is most similar to the picture that is the body."""
        started, deployed = time.perf_counter(), self._deployed()
        picture = await self.pictures(deployed, await request.body())
        return await self._answer(deployed, SearchQuery(picture, asked.k, asked.media), started)

    async def preview(self, version: schemas.VersionName, row: schemas.Place, frame: schemas.Place) -> Response:
        """A small copy of an indexed picture, or of a clip's frame."""
        shelf = self._shelf(version)
        try:
            data = shelf.previews.jpeg(row, frame) if shelf.holds(row) else None
        except ValueError:
            data = None
        if data is None:
            raise RequestRefused(404, f"version {version} holds no frame {frame} of item {row}")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": PREVIEW_CACHE})

    async def lineage(self, version: schemas.VersionName) -> Response:
        """What a version was made from."""
        return JSONResponse(version_lineage(self._shelf(version)))

    async def item_lineage(self, version: schemas.VersionName, row: schemas.Place) -> Response:
        """What an answer came from: the item, and what the version that found it was made from."""
        shelf = self._shelf(version)
        if not shelf.holds(row):
            raise RequestRefused(404, f"version {version} holds no item {row}")
        return JSONResponse(item_lineage(shelf, row))

    async def alive(self) -> Response:
        """The process runs."""
        return JSONResponse({"alive": True})

    async def ready(self) -> Response:
        """A version is loaded; and why a newer one is not, where that is so."""
        versions = self._deployed().view.versions
        return JSONResponse({"versions": versions, "trouble": self.deployment.trouble})

    async def metrics(self) -> Response:
        """Counters in Prometheus's text format."""
        return PlainTextResponse(self.meters.shown(), media_type="text/plain; version=0.0.4")

    async def _answer(self, deployed: LoadedVersion, query: SearchQuery, started: float) -> Response:
        found = await self.batcher.submit(deployed, query)
        versions = deployed.view.versions
        content = {
            "versions": versions,
            "milliseconds": round(1000 * (time.perf_counter() - started), 1),
            "results": [_linked(result, deployed.view.target.version) for result in found.results],
        }
        logged = BackgroundTask(self.log.add, query, found.vector, versions) if self.log else None
        return JSONResponse(content, background=logged)

    def _deployed(self) -> LoadedVersion:
        deployed = self.deployment.current
        if deployed is None:
            why = self.deployment.trouble or "it is being loaded"
            raise RequestRefused(503, f"no version answers yet: {why}", Retry_After="2")
        return deployed

    def _shelf(self, version: str) -> VersionView:
        shelf = self.deployment.view(version)
        if shelf is None:
            raise RequestRefused(404, f"version {version} is not deployed, nor was it the one before")
        return shelf


def router(service: Service, *, token: bool) -> APIRouter:
    """All addresses but the page's.

    Args:
        service: answers.
        token: whether the OpenAPI is to say that they want one; the guards check it.
    """
    routes = APIRouter()
    wanted = [Depends(HTTPBearer(auto_error=False))] if token else []
    asking: dict[str, Any] = {
        "responses": refusals(408, 413, 422, 429, 503),
        "response_model": schemas.Answer,
        "dependencies": wanted,
    }
    looking: dict[str, Any] = {"responses": refusals(404, 422), "dependencies": wanted}
    routes.post("/search", **asking)(service.search)
    routes.post("/search/image", openapi_extra={"requestBody": {"required": True, "content": PICTURE_BODY}}, **asking)(
        service.search_image
    )
    routes.get("/lineage/{version}", response_model=schemas.Lineage, **looking)(service.lineage)
    routes.get("/lineage/{version}/{row}", response_model=schemas.ItemLineage, **looking)(service.item_lineage)
    picture: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "JPEG"}}
    showing = looking | {"responses": picture | looking["responses"], "response_class": Response}
    routes.get("/preview/{version}/{row}/{frame}", **showing)(service.preview)
    routes.get("/healthz", response_model=schemas.Alive, responses=refusals())(service.alive)
    routes.get("/readyz", response_model=schemas.Ready, responses=refusals(503))(service.ready)
    routes.get("/metrics", response_class=PlainTextResponse, **looking | {"responses": refusals()})(service.metrics)
    return routes


def _linked(result: Mapping[str, Any], version: str) -> dict[str, Any]:
    row, frame = result["row"], result["frame"]
    return {**result, "preview": f"/preview/{version}/{row}/{frame}", "lineage": f"/lineage/{version}/{row}"}
