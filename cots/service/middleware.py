"""What stands before the application: who may ask, how much, how many at a time; and what goes with every answer."""

import asyncio
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cots.service.errors import RequestRefused, refusal
from cots.service.metrics import ServiceMetrics
from cots.service.page import FILES

# The page asks for the token, so it must be there without one. It holds nothing of the index.
OPEN_PATHS = frozenset({*FILES, "/healthz", "/readyz"})
ASKING = frozenset({"/search", "/search/image"})  # counted by name even where a guard refuses
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
DRAINED = 4  # times the limit: what is read of a body that is too large, so that its sender hears why


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """What a request may cost.

    Attributes:
        body: bytes.
        pixels: of a picture, opened.
        in_flight: queries at a time.
        seconds: for a body to arrive.
    """

    body: int
    pixels: int
    in_flight: int
    seconds: float


class MetricsMiddleware:
    """Counts and times what passes, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, *, meters: ServiceMetrics) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), "500"

        async def passing(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, passing)
        finally:
            route = getattr(scope.get("route"), "path", scope["path"] if scope["path"] in ASKING else "other")
            self._meters.requests.labels(route, scope["method"], status).inc()
            self._meters.seconds.labels(route).observe(time.perf_counter() - started)


class AuthMiddleware:
    """Lets in those who name the right host and, where there is a token, the token.

    Args:
        app: what is behind.
        hosts: names that the Host header may have; every name, if there is none. A page of another host that gets
            its name resolved to this machine (DNS rebinding) is kept out by this.
        token: that requests must carry; none if it is None.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], token: str | None) -> None:
        self._app, self._hosts, self._token = app, frozenset(hosts), token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RequestRefused as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = _host(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            raise RequestRefused(
                400, f"this service is not known as {host[:100]!r}: start it with --allow-host to change that"
            )
        if self._token is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), self._token.encode()):
            raise RequestRefused(
                401, "give the service's token: Authorization: Bearer TOKEN", WWW_Authenticate="Bearer"
            )


class LimitsMiddleware:
    """Reads bodies up to a size and a time, and lets in so many queries at once."""

    def __init__(self, app: ASGIApp, *, limits: RequestLimits, meters: ServiceMetrics) -> None:
        self._app, self._limits, self._meters = app, limits, meters
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._limits.in_flight:
            busy = RequestRefused(429, f"{self._in_flight} queries are being answered: try again", Retry_After="1")
            await refusal(busy)(scope, receive, send)
            return
        self._in_flight += 1
        self._meters.in_flight.set(self._in_flight)
        try:
            await self._bounded(scope, receive, send)
        finally:
            self._in_flight -= 1
            self._meters.in_flight.set(self._in_flight)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(receive)
        except RequestRefused as error:
            await refusal(error)(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replayed, send)

    async def _body(self, receive: Receive) -> bytes:
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


def _host(header: str) -> str:
    """The name in a Host header, without port: `[::1]:8080` is `[::1]`."""
    name = header.strip().lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
