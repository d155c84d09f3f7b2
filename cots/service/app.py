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
from cots.service.withdrawal import Withdrawal


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
        project: folder of the project whose samples may be withdrawn, with a token only; None allows it for none.
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
    service = Service(
        version_manager=VersionManager(settings.uri, poll=settings.poll, metrics=metrics),
        batcher=DynamicBatcher(metrics),
        image_reader=ImageReader(settings.limits.pixels),
        service_metrics=metrics,
        log=QueryLogWriter(settings.log_queries, metrics) if settings.log_queries else None,
        withdrawal=Withdrawal(settings.project) if settings.project else None,
        originals=_originals(settings),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _run_service(service):
            yield

    return secured_app(
        [router(service, token=settings.token is not None), page_routes()],
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
    limits = settings.limits
    return Originals(settings.source, max_bytes=limits.body, max_pixels=limits.pixels) if settings.source else None


def _check_project(project: Path, token: str | None) -> None:
    if token is None:
        raise BadInput("--project lets requests withdraw samples: set COTS_TOKEN, so that not everybody can")
    if not (project / WITHDRAWN_PATH).is_file():
        raise BadInput(f"--project {project} is not the folder of a project: it has no {WITHDRAWN_PATH}")


@asynccontextmanager
async def _run_service(service: Service) -> AsyncIterator[None]:
    service.version_manager.start()
    answering = asyncio.create_task(service.batcher.run())
    try:
        yield
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering
        await asyncio.to_thread(service.version_manager.stop)
        service.image_reader.close()
        service.batcher.close()
