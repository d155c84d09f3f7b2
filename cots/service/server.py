"""Runs the service with uvicorn: token, hosts, listening socket and shutdown."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Collection

import uvicorn
from fastapi import FastAPI

from cots.errors import BadInput
from cots.loopback import is_loopback
from cots.service.app import ServiceSettings, create_app
from cots.service.connections import ACCEPTED_AT_ONCE, BoundedConnection, ListeningSocket
from cots.service.loaded_version import is_alias, resolve

TOKEN, TOKEN_CHARS = "COTS_TOKEN", 16
BODY_SECONDS = 30.0  # for a request's body to arrive
GRACE_SECONDS = 30  # for requests in flight after SIGTERM

log = logging.getLogger(__name__)


def read_token(host: str) -> str | None:
    """Read the token that requests must carry; it is mandatory if other machines can connect.

    White space around it, such as the line end of a file, is dropped: HTTP drops it too.

    Raises:
        BadInput: it is mandatory and missing, too short, or no request can carry it.
    """
    token = os.environ[TOKEN].strip() if TOKEN in os.environ else None
    if token is None and not is_loopback(host):
        raise BadInput(
            f"{host} accepts remote connections: set {TOKEN} to a secret of at least {TOKEN_CHARS} characters"
        )
    if token is not None and len(token) < TOKEN_CHARS:
        raise BadInput(f"{TOKEN} has {len(token)} characters: give at least {TOKEN_CHARS}")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise BadInput(f"{TOKEN} may hold ASCII characters only, because clients send others in several encodings")
    return token


def allowed_hosts(host: str, allowed: Collection[str]) -> frozenset[str] | None:
    """Names accepted in the Host header besides `localhost` and addresses; None accepts every name.

    Args:
        host: that the service listens at.
        allowed: hosts given on the command line.
    """
    if not allowed and not is_loopback(host):
        return None
    return frozenset(name.lower() for name in allowed)


def serve(settings: ServiceSettings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in flight are finished.

    Args:
        settings: of the application.
        host: name or address to listen at.
        port: 0 picks a free port, which is logged.

    Raises:
        BadInput: the service cannot listen at this host and port, or the folder or fixed version does not exist.
    """
    if not is_alias(settings.uri):
        resolve(settings.uri)  # a wrong fixed version is an error now; an alias may appear later
    run_app(create_app(settings), host=host, port=port, purpose=f"searches {settings.uri}")


def run_app(app: FastAPI, *, host: str, port: int, purpose: str) -> None:
    """Run an application until SIGTERM or Ctrl-C; requests in flight are finished.

    Args:
        app: the application.
        host: name or address to listen at.
        port: 0 picks a free port, which is logged.
        purpose: what the application does, for the log.

    Raises:
        BadInput: it cannot listen at this host and port.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("cots").setLevel(logging.INFO)
    listening = _bind(host, port)
    log.info("http://%s:%d %s", f"[{host}]" if ":" in host else host, listening.getsockname()[1], purpose)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again after its shutdown
    try:
        uvicorn.Server(uvicorn_config(app)).run(sockets=[listening])
    except KeyboardInterrupt:
        sys.exit(0)


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Uvicorn's configuration: bounded connections, no logs, no server header, graceful shutdown."""
    return uvicorn.Config(
        app,
        http=BoundedConnection,
        backlog=ACCEPTED_AT_ONCE,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _bind(host: str, port: int) -> socket.socket:
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return ListeningSocket(fileno=socket.create_server(address[:2], family=family).detach())
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise BadInput(f"cannot listen at {host}:{port}: {reason}") from None
