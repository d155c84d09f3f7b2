"""The search service for a long time: failures, mixed answers, and growth of memory, threads and descriptors.

Run it in a folder in which `dvc repro` has run; `python -m benchmarks.soak 120` takes 120 minutes, and a second number
changes how often the champion moves. As in `benchmarks.serve`, 50 clients query a real `cots serve` whose champion
moves between two versions, and every answer is compared with the one that its version gives to the same query alone.
In addition each client uploads images, sends requests that must be refused, and breaks off in the middle of others;
and half-way the champion becomes a version with a damaged file, which must never answer.
"""

import asyncio
import base64
import io
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import psutil
from PIL import Image

from benchmarks.serve import (
    CLIENTS,
    JSON,
    PACKAGE,
    Answers,
    K,
    create_registry,
    exchange,
    sample_queries,
    send_once,
    service,
    switch_champion,
)
from cots.digests import content_digest
from cots.errors import exit_on_error
from cots.registry.client import CHAMPION, INDEX

MINUTES, SWITCHES = 30.0, 100
DAMAGED = "3"  # the version
BROKEN_OFF_EVERY, REFUSED_EVERY, POLL_SECONDS = 40, 5, 0.1


class Request(NamedTuple):
    """A request and the status that it deserves."""

    method: str
    path: str
    body: bytes
    headers: str = JSON
    status: int = 200


class Usage(NamedTuple):
    """What the service holds at one time."""

    megabytes: float
    threads: int
    descriptors: int

    @classmethod
    def of(cls, process: psutil.Process) -> "Usage":
        """Of a process."""
        return cls(process.memory_info().rss / 2**20, process.num_threads(), process.num_fds())


@dataclass
class Tally(Answers):
    """How the requests ended."""

    refused: int = 0
    broken_off: int = 0
    reopened: int = 0
    usage: list[Usage] = field(default_factory=list)  # after each switch


def main() -> None:
    """Print a table."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    switches = int(sys.argv[2]) if len(sys.argv) > 2 else SWITCHES
    with exit_on_error(), tempfile.TemporaryDirectory(prefix="cots-bench-") as name:
        client = create_registry(Path(name))
        _register_damaged(Path(name), client)
        with service() as (process, port):
            tally = asyncio.run(_measure(process, port, client, seconds=60 * minutes, switches=switches))
    print(_table(tally))
    if tally.failed or tally.mixed or DAMAGED in tally.answered:
        sys.exit("\n".join((tally.failed + tally.mixed)[:5]) or "the damaged version answered")


def _register_damaged(folder: Path, client: mlflow.MlflowClient) -> None:
    """A version one byte of whose index was changed after it was registered."""
    damaged = shutil.copytree(PACKAGE, folder / "damaged")
    tags = {"encoders.version": "1", "content.digest": content_digest(damaged)}
    client.create_model_version(INDEX, damaged.as_uri(), tags=tags)
    index = damaged / "artifacts" / "index" / "index.faiss"
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 1
    index.write_bytes(content)


async def _measure(
    process: psutil.Process, port: int, client: mlflow.MlflowClient, *, seconds: float, switches: int
) -> Tally:
    requests = [*_queries()]
    alone: dict[str, list[dict[str, Any]]] = {}
    for version in ("2", "1"):
        await switch_champion(port, client, version)
        alone[version] = [json.loads(await send_once(port, *request[:4])) for request in requests]
    tally, until = Tally(usage=[Usage.of(process)]), time.perf_counter() + seconds
    clients = [_act(port, requests, first, alone, tally, until) for first in range(CLIENTS)]
    running = asyncio.gather(*clients)
    for turn in range(switches):
        await asyncio.sleep(max(0, (until - time.perf_counter()) / (switches + 1 - turn)))
        if turn == switches // 2:
            await _try_damaged(port, client)
        await switch_champion(port, client, "21"[turn % 2])
        tally.usage.append(Usage.of(process))
    await running
    tally.usage.append(Usage.of(process))
    return tally


async def _try_damaged(port: int, client: mlflow.MlflowClient) -> None:
    """Make the damaged version the champion and wait until the service reports it."""
    await asyncio.to_thread(client.set_registered_model_alias, INDEX, CHAMPION, DAMAGED)
    while "damaged" not in str(json.loads(await send_once(port, "GET", "/readyz"))["trouble"]):
        await asyncio.sleep(POLL_SECONDS)


async def _act(
    port: int,
    queries: Sequence[Request],
    first: int,
    alone: Mapping[str, Sequence[dict[str, Any]]],
    tally: Tally,
    until: float,
) -> None:
    """One client: query after query over one connection, with bad requests over connections of their own in between."""
    connection, refused = Connection(port, tally), itertools.islice(itertools.cycle(BAD_REQUESTS), first, None)
    for number in itertools.count(first):
        if time.perf_counter() > until:
            break
        place = number % len(queries)
        try:
            if number % BROKEN_OFF_EVERY == 0:
                await _break_off(port, queries[place])
                tally.broken_off += 1
            if number % REFUSED_EVERY == 0:
                await _be_refused(port, next(refused), tally)
            status, body = await connection.send(queries[place])
        except (OSError, EOFError) as error:
            tally.failed.append(f"{queries[place].path}: {error!r}")
        else:
            tally.count(f"query {place}", status, body, {version: answers[place] for version, answers in alone.items()})


class Connection:
    """A persistent connection, opened again where the service has closed it because it was not used for seconds."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port, self._tally = port, tally
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._streams:
            reader, writer = self._streams
            try:
                return await exchange(reader, writer, *request[:4])
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if getattr(error, "partial", b""):
                    raise
                writer.close()
                self._tally.reopened += 1
        reader, writer = self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return await exchange(reader, writer, *request[:4])


async def _be_refused(port: int, request: Request, tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    status, body = await exchange(reader, writer, *request[:4])
    writer.close()
    if status == request.status:
        tally.refused += 1
    else:
        tally.failed.append(
            f"{request.method} {request.path}: {status} instead of {request.status}: {body.decode()[:300]}"
        )


async def _break_off(port: int, request: Request) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {request.path} HTTP/1.1\r\n{JSON}Content-Length: {len(request.body)}\r\n\r\n".encode())
    writer.write(request.body[: len(request.body) // 2])
    writer.close()


def _queries() -> list[Request]:
    """Texts and images in JSON, and the same images as uploads."""
    bodies = sample_queries()
    images = [base64.b64decode(query["image"]) for query in map(json.loads, bodies) if "image" in query]
    upload = "Host: localhost\r\nContent-Type: image/jpeg\r\n"
    uploads = [Request("POST", f"/search/image?k={K}", image, upload) for image in images]
    return [Request("POST", "/search", body) for body in bodies] + uploads


def _bad_requests() -> list[Request]:
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(file, "JPEG")
    cut, elsewhere = file.getvalue()[:-200], "Host: localhost\r\nOrigin: https://elsewhere.example\r\n"
    return [
        Request("POST", "/search", b"{", status=422),
        Request("POST", "/search", b'{"text": " "}', status=422),
        Request("POST", "/search", b'{"text": "\\ud800"}', status=422),
        Request("POST", "/search", b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}", status=422),
        Request("POST", "/search", json.dumps({"image": base64.b64encode(cut).decode()}).encode(), status=422),
        Request("POST", "/search/image", b"no image", status=422),
        Request("POST", "/search/image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", status=422),
        Request("POST", "/search/image?k=1000", cut, status=422),
        Request("POST", "/search/image?" + "&a=" * 1000, cut, status=400),
        Request("POST", "/search", b'{"text": "a"}', headers=elsewhere, status=403),
        Request("GET", "/healthz", b"", headers="Host: elsewhere.example\r\n", status=400),
        Request("GET", "/preview/1/999999999/0", b"", status=404),
        Request("GET", "/nowhere", b"", status=404),
        Request("MADEUP", "/search", b"", status=405),
    ]


def _table(tally: Tally) -> str:
    usage = tally.usage
    rows = {
        "answers by version": ", ".join(f"{name}: {count}" for name, count in sorted(tally.answered.items())),
        "switches": len(usage) - 2,
        "refused": tally.refused,
        "broken off": tally.broken_off,
        "reopened": tally.reopened,
        "failed": len(tally.failed),
        "mixed": len(tally.mixed),
    }
    for name in Usage._fields:
        values = [getattr(each, name) for each in usage]
        middle = values[len(values) // 2]
        rows[name] = f"{values[0]:.0f} first, {middle:.0f} half-way, {values[-1]:.0f} last, {max(values):.0f} at most"
    return "\n".join(f"{name:<20} {value}" for name, value in rows.items())


BAD_REQUESTS = _bad_requests()

if __name__ == "__main__":
    main()
