"""The application: addresses, page and guards put together."""

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware import Middleware

from cots.serving.service.batching import Batcher
from cots.serving.service.guards import Admission, Bounds, Door, Limits
from cots.serving.service.meters import Meters
from cots.serving.service.page import page_routes
from cots.serving.service.pictures import PictureReader
from cots.serving.service.query_log import QueryLog
from cots.serving.service.refusals import tell_refusals
from cots.serving.service.routes import Service, router
from cots.serving.service.switching import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
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
    limits: Limits
    hosts: Collection[str]
    token: str | None
    log_queries: Path | None


def create_app(settings: Settings) -> FastAPI:
    """An application that loads its version when it starts, and follows the alias until it stops.

    Raises:
        BadInput: the folder for the queries cannot be made.
    """
    meters = Meters()
    service = Service(
        deployment=Deployment(settings.uri, poll=settings.poll, meters=meters),
        batcher=Batcher(meters),
        pictures=PictureReader(settings.limits.pixels),
        meters=meters,
        log=QueryLog(settings.log_queries, meters) if settings.log_queries else None,
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
            Middleware(Door, meters=meters),
            Middleware(Admission, hosts=settings.hosts, token=settings.token),
            Middleware(Bounds, limits=settings.limits, meters=meters),
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
