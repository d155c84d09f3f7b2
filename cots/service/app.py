"""The application: addresses, page and guards put together."""

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware import Middleware

from cots.service.batching import DynamicBatcher
from cots.service.errors import tell_refusals
from cots.service.images import ImageReader
from cots.service.metrics import ServiceMetrics
from cots.service.middleware import AuthMiddleware, LimitsMiddleware, MetricsMiddleware, RequestLimits
from cots.service.page import page_routes
from cots.service.query_log import QueryLogWriter
from cots.service.routes import Service, router
from cots.service.version_manager import VersionManager


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """How a service is run.

    Attributes:
        uri: of the index: an alias of the registry, a version, or a folder.
        poll: seconds between looks at the alias.
        limits: of a request.
        hosts: names that the Host header may have; every name, if there is none.
        token: that requests must carry; none if it is None.
        log_queries: folder for the queries; they are not kept if it is None.
    """

    uri: str
    poll: float
    limits: RequestLimits
    hosts: Collection[str]
    token: str | None
    log_queries: Path | None


def create_app(settings: ServiceSettings) -> FastAPI:
    """An application that loads its version when it starts, and follows the alias until it stops.

    Raises:
        BadInput: the folder for the queries cannot be made.
    """
    meters = ServiceMetrics()
    service = Service(
        deployment=VersionManager(settings.uri, poll=settings.poll, meters=meters),
        batcher=DynamicBatcher(meters),
        pictures=ImageReader(settings.limits.pixels),
        meters=meters,
        log=QueryLogWriter(settings.log_queries, meters) if settings.log_queries else None,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(service):
            yield

    app = FastAPI(
        title="COTS search",
        description="Pictures, clips and captions for a text or a picture.",
        version=importlib.metadata.version("cots"),
        docs_url=None,  # its pages load scripts from another host
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lifespan,
        middleware=[
            Middleware(MetricsMiddleware, meters=meters),
            Middleware(AuthMiddleware, hosts=settings.hosts, token=settings.token),
            Middleware(LimitsMiddleware, limits=settings.limits, meters=meters),
        ],
    )
    app.include_router(router(service, token=settings.token is not None))
    app.include_router(page_routes())
    tell_refusals(app)
    return app


@asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    service.deployment.start()
    answering = asyncio.create_task(service.batcher.run())
    try:
        yield
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering
        await asyncio.to_thread(service.deployment.stop)
        service.pictures.close()
        service.batcher.close()
