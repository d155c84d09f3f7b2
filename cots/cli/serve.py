"""`cots serve`: the search service and its page."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.addresses import CHAMPION


def serve(
    model: Annotated[
        str, typer.Option(help="An alias or version of cots-index, or a folder such as package/index.")
    ] = CHAMPION,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine COTS_TOKEN must be set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between looks at the alias.")] = 5.0,
    max_body: Annotated[float, typer.Option(min=0.01, help="Of a request, MiB.")] = 16.0,
    max_pixels: Annotated[float, typer.Option(min=0.01, help="Of a picture, millions.")] = 40.0,
    max_queries: Annotated[int, typer.Option(min=1, help="Answered at a time; more are told to try again.")] = 128,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name the service is known by; repeat for more.")
    ] = None,
    log_queries: Annotated[
        Path | None, typer.Option(help="Folder that keeps every query and its vector, a file a day.")
    ] = None,
) -> None:
    """Answer searches over HTTP, with a page at /; a new champion is taken over while it runs."""
    from cots.service.app import ServiceSettings
    from cots.service.middleware import RequestLimits
    from cots.service.server import BODY_SECONDS, allowed_hosts, read_token
    from cots.service.server import serve as run

    limits = RequestLimits(
        body=int(max_body * 2**20), pixels=int(max_pixels * 1e6), in_flight=max_queries, seconds=BODY_SECONDS
    )
    settings = ServiceSettings(
        uri=model,
        poll=poll,
        limits=limits,
        hosts=allowed_hosts(host, allow_host or []),
        token=read_token(host),
        log_queries=log_queries,
    )
    run(settings, host=host, port=port)
