"""Assembles the FastAPI application from routes, page and middleware."""

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from cots.errors import BadInput
from cots.file_names import WITHDRAWN_PATH
from cots.service.batching import DynamicBatcher
from cots.service.errors import add_error_handlers
from cots.service.images import ImageReader
from cots.service.item_routes import ProjectItems, item_router
from cots.service.metrics import ServiceMetrics
from cots.service.middleware import (
    AuthMiddleware,
    HeadMiddleware,
    LimitsMiddleware,
    MetricsMiddleware,
    RequestLimits,
)
from cots.service.originals import Originals
from cots.service.page import page_routes
from cots.service.query_log import QueryLogWriter
from cots.service.routes import Service, router
from cots.service.version_manager import VersionManager


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Settings of a service.

    Attributes:
        uri: of the index: a registry alias, a version or a folder.
        poll: seconds between checks of the alias.
        limits: of requests.
        hosts: see `AuthMiddleware`.
        token: required of requests; None requires none.
        log_queries: folder of the query log; None disables the log.
        project: folder of the project whose samples requests may change, with a token only; None allows none.
        source: folder of the originals that may be read; None allows none.
    """

    uri: str
    poll: float
    limits: RequestLimits
    hosts: Collection[str] | None
    token: str | None
    log_queries: Path | None
    project: Path | None = None
    source: Path | None = None


def create_app(settings: ServiceSettings) -> FastAPI:
    """Create an application that loads its version at startup and follows the alias until shutdown.

    Raises:
        BadInput: a folder cannot be created or is not there, or there is a project without a token or list.
    """
    if settings.project is not None:
        _check_project(settings.project, settings.token)
    metrics = ServiceMetrics()
    version_manager = VersionManager(settings.uri, poll=settings.poll, metrics=metrics)
    image_reader = ImageReader(settings.limits.pixels)
    items = None
    if settings.project:
        items = ProjectItems.of(
            settings.project,
            version_manager=version_manager,
            image_reader=image_reader,
            limits=settings.limits,
            metrics=metrics,
        )
    service = Service(
        version_manager=version_manager,
        batcher=DynamicBatcher(metrics),
        image_reader=image_reader,
        service_metrics=metrics,
        log=QueryLogWriter(settings.log_queries, metrics) if settings.log_queries else None,
        originals=_originals(settings),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _run_service(service, items):
            yield

    has_token = settings.token is not None
    return secured_app(
        [router(service, token=has_token), item_router(items, token=has_token), page_routes()],
        hosts=settings.hosts,
        token=settings.token,
        limits=settings.limits,
        metrics=metrics,
        title="COTS search",
        description="Searches images, videos and captions by text or image.",
        generate_unique_id_function=lambda route: route.name,  # the methods of `cots.service.client.Client`
        lifespan=lifespan,
    )


def secured_app(
    routers: Sequence[APIRouter],
    *,
    hosts: Collection[str] | None,
    token: str | None,
    limits: RequestLimits,
    metrics: ServiceMetrics,
    **options: Any,  # noqa: ANN401  those of FastAPI
) -> FastAPI:
    """Create an application behind this package's middleware, with errors in its form.

    Args:
        routers: the routes.
        hosts, token: see `AuthMiddleware`.
        limits: of requests.
        metrics: of requests.
        options: further ones of FastAPI, such as a title.
    """
    app = FastAPI(
        version=importlib.metadata.version("cots"),
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[
            Middleware(HeadMiddleware),
            Middleware(MetricsMiddleware, metrics=metrics),
            Middleware(AuthMiddleware, hosts=hosts, token=token),
            Middleware(LimitsMiddleware, limits=limits, metrics=metrics),
        ],
        **options,
    )
    for routes in routers:
        app.include_router(routes)
    add_error_handlers(app)
    return app


def _originals(settings: ServiceSettings) -> Originals | None:
    if settings.source is None:
        return None
    pixels, size = settings.limits.pixels, settings.limits.body
    return Originals(settings.source, project=settings.project, max_bytes=size, max_pixels=pixels)


def _check_project(project: Path, token: str | None) -> None:
    if token is None:
        raise BadInput("--project lets requests change samples: set COTS_TOKEN, so that not everybody can")
    if not (project / WITHDRAWN_PATH).is_file():
        raise BadInput(f"--project {project} is not the folder of a project: it has no {WITHDRAWN_PATH}")


@asynccontextmanager
async def _run_service(service: Service, items: ProjectItems | None) -> AsyncIterator[None]:
    service.version_manager.start()
    tasks = [asyncio.create_task(service.batcher.run())]
    if items:
        tasks.append(asyncio.create_task(items.refresher.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(service.version_manager.stop)
        service.image_reader.close()
        service.batcher.close()
