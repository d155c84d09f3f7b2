"""ASGI middleware: metrics and security headers, authentication, limits on size, time and concurrency."""

import asyncio
import ipaddress
import secrets
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPMethod

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cots.service.errors import RequestRefused, error_response
from cots.service.metrics import ServiceMetrics
from cots.service.page import FILES
from cots.service.schemas import MAX_CHARS

# The page prompts for the token, so it is served without one; none of these contains data of the index or queries.
OPEN_PATHS = frozenset({*FILES, "/healthz", "/readyz", "/metrics"})
WITHDRAW_PATH = "/items/withdraw"
DECODED_PATHS = "/original/"  # what is below takes as much work as a query
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
METHODS = frozenset(HTTPMethod)  # others share one label, so that senders cannot add time series
DRAINED = 4  # times the limit: read this much of an oversized body, so that its sender receives the error
# Reading many small values or parameters would stop the event loop for seconds; no query has as many.
MARKS = b",[{"  # separate or begin the values of JSON
MAX_MARKS = {"/search": MAX_CHARS + 100, WITHDRAW_PATH: MAX_CHARS + 100, "/items": 20_000}  # in a body
POST_PATHS = {*MAX_MARKS, "/search/image"}  # counted under their own name even if refused
QUERIES = "queries"  # which take slots of their own, beside withdrawals
MAX_QUERY_STRING = 1000  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Limits of requests.

    Attributes:
        body: size in bytes.
        pixels: of an image.
        in_flight: concurrent queries, and likewise withdrawals.
        seconds: for a body to arrive.
    """

    body: int
    pixels: int
    in_flight: int
    seconds: float


class HeadMiddleware:
    """Answers HEAD as GET; the server, which still sees HEAD, leaves out the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)


class MetricsMiddleware:
    """Counts and times requests, and adds security headers to every response."""

    def __init__(self, app: ASGIApp, *, metrics: ServiceMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), "500"

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", scope["path"] if scope["path"] in POST_PATHS else "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.requests.labels(route, method, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)


class AuthMiddleware:
    """Refuses requests of other sites' pages and requests without the token.

    Args:
        app: the wrapped application.
        hosts: names accepted in the headers Host and Origin, besides `localhost` and addresses in Host, and besides the
            host itself in Origin; None accepts every name. Host tells a page whose name was made to resolve to this
            machine (DNS rebinding), which an address cannot be; Origin tells a page that sends requests here.
        token: required of requests; None requires none.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None, token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RequestRefused as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._hosts is not None:
            _check_hosts(headers.get("host", ""), headers.get("origin"), self._hosts)
        if self._token is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise RequestRefused(
                401, "token required: send the header Authorization: Bearer TOKEN", WWW_Authenticate="Bearer"
            )


class LimitsMiddleware:
    """Limits query strings, the size, values and duration of bodies, and the number of concurrent queries."""

    def __init__(self, app: ASGIApp, *, limits: RequestLimits, metrics: ServiceMetrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._in_flight = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if len(scope["query_string"]) > MAX_QUERY_STRING:
            long = RequestRefused(400, f"the query string is longer than {MAX_QUERY_STRING:,} bytes")
            await error_response(long)(scope, receive, send)
            return
        if scope["method"] != "POST" and not scope["path"].startswith(DECODED_PATHS):
            await self._app(scope, receive, send)
            return
        kind = "withdrawals" if scope["path"] == WITHDRAW_PATH else QUERIES  # which wait for each other, for minutes
        if self._in_flight[kind] >= self._limits.in_flight:
            busy = RequestRefused(429, f"{self._in_flight[kind]} {kind} are being answered: try again", Retry_After="1")
            await error_response(busy)(scope, receive, send)
            return
        self._in_flight[kind] += 1
        self._metrics.in_flight.set(self._in_flight[QUERIES])
        try:
            await self._run_with_body(scope, receive, send)
        finally:
            self._in_flight[kind] -= 1
            self._metrics.in_flight.set(self._in_flight[QUERIES])

    async def _run_with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._read_body(receive)
            if limit := MAX_MARKS.get(scope["path"]):
                _check_values(body, limit)
        except RequestRefused as error:
            await error_response(error)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _read_body(self, receive: Receive) -> bytes:
        limit, chunks, size = self._limits.body, [], 0
        try:
            async with asyncio.timeout(self._limits.seconds):
                while size <= DRAINED * limit:
                    message = await receive()
                    size += len(message.get("body", b""))
                    if size <= limit:
                        chunks.append(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise RequestRefused(
                408, f"the body took longer than {self._limits.seconds:g} s", Connection="close"
            ) from None
        if size > limit:
            raise RequestRefused(413, f"the body is larger than {limit:,} bytes", Connection="close")
        return b"".join(chunks)


def _check_values(body: bytes, limit: int) -> None:
    """Refuse a JSON body of more values than a request can have, before it is parsed."""
    if sum(body.count(mark) for mark in MARKS) > limit:
        raise RequestRefused(422, f"the body has more values than a request of its kind, {limit:,}")


def _check_hosts(host: str, origin: str | None, allowed: Collection[str]) -> None:
    name = _name(host)
    if name != "localhost" and name not in allowed and not _is_address(name):
        raise RequestRefused(400, f"this service is not known as {name[:100]!r}: allow the host with --allow-host")
    if origin is None:
        return
    sender = origin.partition("://")[2].lower()
    if sender != host.lower() and _name(sender) not in allowed:
        raise RequestRefused(403, f"pages of {origin[:100]!r} may not use this service: allow it with --allow-host")


def _name(host: str) -> str:
    """The host without its port: `[::1]:8080` gives `[::1]`."""
    name = host.strip().lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
