"""`cots serve`: the search service and its page."""

from pathlib import Path
from typing import Annotated

import typer

from cots.cli.addresses import CHAMPION_URI


def serve(
    model: Annotated[
        str, typer.Option(help="An alias to follow, a version of cots-index, or a folder such as package/index.")
    ] = CHAMPION_URI,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs COTS_TOKEN.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8080,
    poll: Annotated[float, typer.Option(min=0.1, help="Seconds between checks of the alias.")] = 5.0,
    max_body: Annotated[float, typer.Option(min=0.01, help="Maximum size of a request, MiB.")] = 16.0,
    max_pixels: Annotated[float, typer.Option(min=0.01, help="Maximum size of an image, millions of pixels.")] = 40.0,
    max_queries: Annotated[int, typer.Option(min=1, help="Maximum queries in flight; more get status 429.")] = 128,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host name that requests may use; repeat for more.")
    ] = None,
    log_queries: Annotated[
        Path | None, typer.Option(help="Log every query and its embedding to this folder, one file a day.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Folder of the images that the index was made from: results lead to their originals."),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the project whose samples requests may add, change and withdraw; needs COTS_TOKEN."
        ),
    ] = None,
) -> None:
    """Serve searches over HTTP, with a page at /; switches to a new champion while it runs.

    Where nothing is deployed yet, it waits for the first version: requests get status 503 with the reason until then.
    """
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
        project=project,
        source=source,
    )
    run(settings, host=host, port=port)
