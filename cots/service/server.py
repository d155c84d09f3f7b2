"""The process: where it listens, and how it ends."""

import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Collection

import uvicorn
from fastapi import FastAPI

from cots.errors import BadInput
from cots.service.app import ServiceSettings, create_app
from cots.service.loaded_version import follows, resolve

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
TOKEN, TOKEN_CHARS = "COTS_TOKEN", 16
BODY_SECONDS = 30.0  # for a request's body to arrive
GRACE_SECONDS = 30  # that requests in flight may take after SIGTERM

log = logging.getLogger(__name__)


def token(host: str) -> str | None:
    """What requests must carry, from the environment: always where others than this machine can connect.

    Raises:
        BadInput: it is needed and missing, or too short.
    """
    given = os.environ.get(TOKEN)
    if given is None and not is_loopback(host):
        raise BadInput(f"{host} can be reached from elsewhere: set {TOKEN} to a secret of {TOKEN_CHARS} characters")
    if given is not None and len(given) < TOKEN_CHARS:
        raise BadInput(f"{TOKEN} has {len(given)} characters: give at least {TOKEN_CHARS}")
    return given


def hosts(host: str, allowed: Collection[str]) -> frozenset[str]:
    """Names that requests may use for this service; none where all are allowed.

    Args:
        host: where it listens.
        allowed: names that were given on the command line.
    """
    if not allowed and not is_loopback(host):
        return frozenset()
    return frozenset({*LOOPBACK, *(name.lower() for name in allowed)})


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(settings: ServiceSettings, *, host: str, port: int) -> None:
    """Answer until SIGTERM or Ctrl-C; requests in flight are finished.

    Args:
        settings: of the application.
        host: name or address to listen at.
        port: 0 takes a free one, which the log names.

    Raises:
        BadInput: the address cannot be listened at; or a folder or fixed version is none.
    """
    if not follows(settings.uri):
        resolve(settings.uri)  # it will not become right by waiting
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("cots").setLevel(logging.INFO)
    app = create_app(settings)
    listening = _listening(host, port)
    log.info("http://%s:%d searches %s", f"[{host}]" if ":" in host else host, listening.getsockname()[1], settings.uri)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # which uvicorn calls when it has finished
    try:
        uvicorn.Server(configured(app)).run(sockets=[listening])
    except KeyboardInterrupt:
        sys.exit(0)


def configured(app: FastAPI) -> uvicorn.Config:
    """How uvicorn is to run it: silent, without its name in answers, and patient at the end."""
    return uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS, ws="none"
    )


def _listening(host: str, port: int) -> socket.socket:
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise BadInput(f"cannot listen at {host}:{port}: {reason}") from None
