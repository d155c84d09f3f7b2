"""Connections of the service: clients that do not go on are cut off, and there are fewer than the process has files."""

import asyncio
import resource
import socket
import sys

from uvicorn.protocols.http.h11_impl import H11Protocol

CLIENT_SECONDS = 10.0  # for a request's head to arrive, and for an answer to be read
OTHER_FILES = 100  # of the process: for loading a version, the query log, the registry
ACCEPTED_AT_ONCE = 16  # asyncio opens up to four times as many before the first is counted
QUEUE = 2048  # of the kernel, of connections that wait to be accepted


class BoundedConnection(H11Protocol):
    """Uvicorn's HTTP/1.1 connection, which waits for a client at most `CLIENT_SECONDS` at a time.

    `LimitsMiddleware` limits how long the body of a request may take. A connection beyond what the process can open is
    closed at once: asyncio would log one error after the other instead.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Asyncio."""
        super().connection_made(transport)
        if len(self.connections) > max_connections():
            transport.abort()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio."""
        super().connection_lost(exc)
        self._stop_timer()

    def handle_events(self) -> None:
        """Uvicorn, after data have arrived."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Uvicorn."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Asyncio, when the client does not read."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Asyncio."""
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        """Run the timer while the client has to go on: send the rest of a head or read an answer."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.flow.write_paused:
            self._stop_timer()
        elif self._timer is None:
            # abort, because close would wait for a client that does not read
            self._timer = self.loop.call_later(CLIENT_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ListeningSocket(socket.socket):
    """A socket whose queue is `QUEUE` long, however few connections asyncio accepts at once."""

    def listen(self, backlog: int = QUEUE) -> None:
        """Asyncio, with the number that it accepts at once."""
        super().listen(QUEUE)


def max_connections() -> int:
    """How many connections may be open at a time, from the limit on the files of this process."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else max(files - OTHER_FILES, files // 2)
