"""HTTP routes of the service."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from numpy.typing import NDArray
from PIL import Image
from starlette.background import BackgroundTask

from cots.data.image_decoding import FORMATS
from cots.data.ingest.metadata import parse_metadata
from cots.errors import BadInput
from cots.search_engine.item_filters import ITEM_METADATA
from cots.search_engine.queries import TEXT_WEIGHT, parse_where
from cots.search_engine.queries import Query as SearchQuery
from cots.service import schemas
from cots.service.batching import DynamicBatcher
from cots.service.cursor import MAX_RESULTS, Cursor
from cots.service.errors import RequestRefused
from cots.service.images import ImageReader
from cots.service.lineage import item_lineage, version_lineage
from cots.service.loaded_version import LoadedVersion, VersionView
from cots.service.metrics import ServiceMetrics
from cots.service.originals import Originals
from cots.service.query_log import QueryLogWriter
from cots.service.version_manager import VersionManager

STATUS_DESCRIPTIONS = {
    400: "wrong Host header or malformed request",
    401: "missing or wrong token",
    403: "a page of another host sent the request",
    404: "not found",
    408: "the body was too slow",
    410: "the cursor is of a version that no longer answers",
    413: "the body is too large",
    422: "invalid query",
    429: "too many queries at a time",
    500: "the service failed",
    503: "no version is loaded yet",
}
IMAGE_BODY = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in FORMATS.values()}
PREVIEW_CACHE = "private, max-age=3600"  # seconds; the previews of a version never change


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI descriptions of error responses; 400, 401, 403 and 500 are always included."""
    return {
        status: {"model": schemas.Refusal, "description": STATUS_DESCRIPTIONS[status]}
        for status in (400, 401, 403, *statuses, 500)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The components behind the routes; its methods are the request handlers.

    Attributes:
        version_manager: holds the version that answers.
        batcher: encodes queries in batches.
        image_reader: decodes images of requests.
        service_metrics: exported at `/metrics`.
        log: query log, or None.
        originals: reads files of the source; None if the service allows no originals.
    """

    version_manager: VersionManager
    batcher: DynamicBatcher
    image_reader: ImageReader
    service_metrics: ServiceMetrics
    log: QueryLogWriter | None
    originals: Originals | None

    async def search(self, query: Annotated[schemas.AnyQuery, Body()]) -> Response:
        """Search by a text, a base64-encoded image, or both; or get the next page of an earlier search."""
        started, version = time.perf_counter(), self._require_version()
        if isinstance(query, schemas.CursorQuery):
            cursor = Cursor.decode(query.cursor)
            return await self._answer(version, cursor.query(version, query.k), started, fits=cursor.fits)
        text, weight = None, TEXT_WEIGHT
        content: str | Image.Image
        if isinstance(query, schemas.TextQuery):
            content = query.text
        else:
            content = await self.image_reader(version, query.image)
            text, weight = query.text, query.text_weight
        search_query = SearchQuery(
            content,
            query.k,
            query.media,
            text=text,
            text_weight=weight,
            minus=tuple(query.minus),
            min_score=query.min_score,
            where=parse_where(query.where),
        )
        return await self._answer(version, search_query, started)

    async def search_image(
        self, request: Request, parameters: Annotated[schemas.SearchParameters, Query()]
    ) -> Response:
        """Search by the image in the request body."""
        started, version = time.perf_counter(), self._require_version()
        image = await self.image_reader(version, await request.body())
        query = SearchQuery(image, parameters.k, parameters.media, min_score=parameters.min_score)
        return await self._answer(version, query, started)

    async def preview(self, version: schemas.VersionName, row: schemas.RowNumber, frame: schemas.RowNumber) -> Response:
        """Thumbnail of an indexed image or of a video frame."""
        view = self._require_view(version)
        try:
            data = view.previews.jpeg(row, frame) if view.holds(row) else None
        except ValueError:
            data = None
        if data is None:
            raise RequestRefused(404, f"version {version} has no frame {frame} of item {row}")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": PREVIEW_CACHE})

    async def original(self, version: schemas.VersionName, row: schemas.RowNumber) -> Response:
        """The file that an indexed image was made from, as it is."""
        if self.originals is None:
            raise RequestRefused(403, "this service reads no originals: start it with --source")
        read = partial(self.originals.read, self._require_view(version), row)
        data, media_type = await self.image_reader.run(read)
        return Response(data, media_type=media_type, headers={"Cache-Control": PREVIEW_CACHE})

    async def overview(self) -> Response:
        """What the index holds: numbers of items, columns to filter by, and sample queries."""
        version = self._require_version()
        return JSONResponse({"versions": version.view.versions, **version.overview})

    async def lineage(self, version: schemas.VersionName) -> Response:
        """Lineage of a version."""
        return JSONResponse(version_lineage(self._require_view(version)))

    async def item_lineage(self, version: schemas.VersionName, row: schemas.RowNumber) -> Response:
        """Lineage of a result: the item and the version that returned it."""
        view = self._require_view(version)
        if not view.holds(row):
            raise RequestRefused(404, f"version {version} has no item {row}")
        return JSONResponse(item_lineage(view, row))

    async def alive(self) -> Response:
        """Liveness probe."""
        return JSONResponse({"alive": True})

    async def ready(self) -> Response:
        """Readiness probe: the loaded version, and the error that prevents loading a newer one, if any."""
        versions = self._require_version().view.versions
        return JSONResponse({"versions": versions, "trouble": self.version_manager.last_error})

    async def metrics(self) -> Response:
        """Metrics in Prometheus's text format."""
        return PlainTextResponse(self.service_metrics.render(), media_type="text/plain; version=0.0.4")

    async def _answer(
        self, version: LoadedVersion, query: SearchQuery, started: float, *, fits: bool | None = None
    ) -> Response:
        """Answer a query; for a further page, `fits` is that of the first."""
        try:
            version.search.filters.require_columns(query.where)
        except BadInput as error:
            raise RequestRefused(422, str(error)) from None
        answer = await self.batcher.submit(version, replace(query, k=query.k + 1))  # is there a next page?
        if not query.offset:
            fits = version.search.fits(query, answer.results)
        cursor = None
        if len(answer.results) > query.k and query.offset + query.k < MAX_RESULTS:
            cursor = Cursor.after(query, answer.vector, version, fits=fits).encode()
        content = {
            "versions": version.view.versions,
            "milliseconds": round(1000 * (time.perf_counter() - started), 1),
            "results": [self._complete(result, version) for result in answer.results[: query.k]],
            "fits": fits,
            "next": cursor,
        }
        return JSONResponse(content, background=self._log_task(query, answer.vector, version))

    def _complete(self, result: Mapping[str, Any], version: LoadedVersion) -> dict[str, Any]:
        """A result with its metadata, number of frames and links."""
        name, row, frame = version.view.target.version, result["row"], result["frame"]
        items = version.search.items
        is_image = items["media"].iat[row] == "image"
        return {
            **result,
            "metadata": parse_metadata(items[ITEM_METADATA].iat[row]) if ITEM_METADATA in items else {},
            "frames": version.search.frames.count(row),
            "preview": f"/preview/{name}/{row}/{frame}",
            "original": f"/original/{name}/{row}" if self.originals and is_image else None,
            "lineage": f"/lineage/{name}/{row}",
        }

    def _log_task(
        self, query: SearchQuery, vector: NDArray[np.float32], version: LoadedVersion
    ) -> BackgroundTask | None:
        """Task that logs a text or an image; None for other queries, because drift is not measured on them."""
        if self.log is None or len(query.terms) > 1 or isinstance(query.content, np.ndarray):
            return None
        return BackgroundTask(self.log.add, query, vector, version.view.versions)

    def _require_version(self) -> LoadedVersion:
        version = self.version_manager.current
        if version is None:
            reason = self.version_manager.last_error or "it is being loaded"
            raise RequestRefused(503, f"no version answers yet: {reason}", Retry_After="2")
        return version

    def _require_view(self, version: str) -> VersionView:
        view = self.version_manager.find_view(version)
        if view is None:
            raise RequestRefused(404, f"version {version} is neither the current nor the previous version")
        return view


def router(service: Service, *, token: bool) -> APIRouter:
    """The routes of searches, lookups and probes.

    Args:
        service: handles the requests.
        token: whether OpenAPI declares a bearer token; the middleware checks it.
    """
    routes = APIRouter()
    auth = [Depends(HTTPBearer(auto_error=False))] if token else []
    query_errors = error_responses(408, 413, 422, 429, 503)
    search_options: dict[str, Any] = {"response_model": schemas.Answer, "dependencies": auth}
    routes.post("/search", responses=query_errors | error_responses(410), **search_options)(service.search)
    image_body = {"requestBody": {"required": True, "content": IMAGE_BODY}}
    routes.post("/search/image", responses=query_errors, openapi_extra=image_body, **search_options)(
        service.search_image
    )
    overview_options: dict[str, Any] = {"response_model": schemas.Overview, "dependencies": auth}
    routes.get("/overview", responses=error_responses(503), **overview_options)(service.overview)
    lookup_options: dict[str, Any] = {"responses": error_responses(404, 422), "dependencies": auth}
    routes.get("/lineage/{version}", response_model=schemas.Lineage, **lookup_options)(service.lineage)
    routes.get("/lineage/{version}/{row}", response_model=schemas.ItemLineage, **lookup_options)(service.item_lineage)
    jpeg: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "JPEG"}}
    preview_options = lookup_options | {"responses": jpeg | lookup_options["responses"], "response_class": Response}
    routes.get("/preview/{version}/{row}/{frame}", **preview_options)(service.preview)
    images: dict[int | str, dict[str, Any]] = {200: {"content": IMAGE_BODY, "description": "The file"}}
    original_options = lookup_options | {
        "responses": images | error_responses(404, 422, 429),
        "response_class": Response,
    }
    routes.get("/original/{version}/{row}", **original_options)(service.original)
    routes.get("/healthz", response_model=schemas.Alive, responses=error_responses())(service.alive)
    routes.get("/readyz", response_model=schemas.Ready, responses=error_responses(503))(service.ready)
    routes.get("/metrics", response_class=PlainTextResponse, responses=error_responses())(service.metrics)
    return routes
