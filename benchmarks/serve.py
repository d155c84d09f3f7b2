"""The search service under load while its champion changes: failures, mixed answers, throughput and latency.

Run it in a folder in which `dvc repro` has run; `python -m benchmarks.serve 60` sends queries for 60 seconds. A
temporary store holds two versions: `package/index`, and an index that the pre-trained encoders make of the same
samples. A real `cots serve` follows the champion, which moves ten times between them, while 50 clients send one query
after the other over persistent connections. Every answer is compared with the one that its version gives to the same
query alone.
"""

import asyncio
import base64
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil

from cots.config.params import Params
from cots.errors import exit_on_error
from cots.file_names import MANIFEST_PATH, SHARDS_PATH
from cots.index.thumbnails import Thumbnails
from cots.registry.client import CHAMPION, INDEX
from cots.registry.packaging import save_index
from cots.stages.index import stage
from cots.stages.package import inference_config

CLIENTS, SWITCHES, SECONDS = 50, 10, 60.0
TEXTS, IMAGES = 45, 5  # distinct queries
K = 10
TOLERANCE = 0.02  # of a cosine, because bfloat16 depends on the batch
JSON = "Host: localhost\r\nContent-Type: application/json\r\n"
PACKAGE, OTHER = Path("package/index"), Path("models/pretrained")


@dataclass
class Answers:
    """How queries were answered."""

    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)  # by version

    def count(self, query: str, status: int, body: bytes, alone: Mapping[str, dict[str, Any]]) -> None:
        """Count an answer, which must be the one that its version gives to the query alone."""
        if status != 200:
            self.failed.append(f"{query}: {status}: {body.decode()}")
            return
        answer = json.loads(body)
        version = answer["versions"]["index"]["version"]
        self.answered[version] = self.answered.get(version, 0) + 1
        if version not in alone or not is_of_one_version(answer, alone[version]):
            self.mixed.append(f"{query}, version {version}: {body.decode()[:300]}")


@dataclass
class Tally(Answers):
    """How the queries were answered, and how fast."""

    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with exit_on_error(), tempfile.TemporaryDirectory(prefix="cots-bench-") as name:
        client = create_registry(Path(name))
        with service() as (_, port):
            tally, elapsed = asyncio.run(_measure(port, client, seconds))
            metrics = asyncio.run(send_once(port, "GET", "/metrics")).decode()
    print(_table(tally, elapsed, metrics))
    if tally.failed or tally.mixed:
        sys.exit("\n".join((tally.failed + tally.mixed)[:5]))


def create_registry(folder: Path) -> mlflow.MlflowClient:
    """A store with two versions; the first one is the champion."""
    params = Params.load()
    stage(SHARDS_PATH, MANIFEST_PATH, OTHER, folder / "index", params=params)
    save_index(folder / "package", OTHER, folder / "index", config=inference_config(params), cards={})
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    client.create_registered_model(INDEX)
    for package in (PACKAGE, folder / "package"):
        client.create_model_version(INDEX, package.absolute().as_uri(), tags={"encoders.version": "1"})
    client.set_registered_model_alias(INDEX, CHAMPION, "1")
    return client


@contextmanager
def service() -> Iterator[tuple[psutil.Process, int]]:
    """A running `cots serve` on version 1, and its port."""
    command = [sys.executable, "-m", "cots", "serve", "--port", "0", "--poll", "0.5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        line = process.stderr.readline()
        address = re.search(r":(\d+) searches", line)
        if not address:
            sys.exit(line)
        assert "version 1 answers" in process.stderr.readline()
        # so that it never waits for a reader of its log
        threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
        yield psutil.Process(process.pid), int(address[1])
    finally:
        process.terminate()
        process.wait()


async def _measure(port: int, client: mlflow.MlflowClient, seconds: float) -> tuple[Tally, float]:
    queries = sample_queries()
    alone = {}
    for version in ("2", "1"):
        await switch_champion(port, client, version)
        answers = [json.loads(await send_once(port, "POST", "/search", query)) for query in queries]
        alone[version] = answers
    tally, start = Tally(), time.perf_counter()
    clients = [_send_queries(port, queries, first, alone, tally, start + seconds) for first in range(CLIENTS)]
    requests = asyncio.gather(*clients)
    for turn in range(SWITCHES):
        await asyncio.sleep(seconds / (SWITCHES + 1))
        await switch_champion(port, client, "21"[turn % 2])
    await requests
    return tally, time.perf_counter() - start


async def switch_champion(port: int, client: mlflow.MlflowClient, version: str) -> None:
    """Move the champion and wait until the service answers with it."""
    await asyncio.to_thread(client.set_registered_model_alias, INDEX, CHAMPION, version)
    while json.loads(await send_once(port, "GET", "/readyz"))["versions"]["index"]["version"] != version:
        await asyncio.sleep(0.05)


async def _send_queries(
    port: int,
    queries: Sequence[bytes],
    first: int,
    alone: Mapping[str, Sequence[dict[str, Any]]],
    tally: Tally,
    until: float,
) -> None:
    """One client: sends query after query over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in itertools.count(first):
        if time.perf_counter() > until:
            break
        place, start = number % len(queries), time.perf_counter()
        try:
            status, body = await exchange(reader, writer, "POST", "/search", queries[place])
        except (OSError, EOFError) as error:
            tally.failed.append(repr(error))
            break
        tally.seconds.append(time.perf_counter() - start)
        tally.count(f"query {place}", status, body, {version: answers[place] for version, answers in alone.items()})
    writer.close()


def is_of_one_version(answer: dict[str, Any], alone: dict[str, Any]) -> bool:
    """Whether version names, links and scores are all those of the version that the answer names."""
    version = answer["versions"]["index"]["version"]
    linked = all(hit["preview"].startswith(f"/preview/{version}/") for hit in answer["results"])
    scores, expected = ([hit["score"] for hit in each["results"]] for each in (answer, alone))
    equal = len(scores) == len(expected) and np.allclose(scores, expected, atol=TOLERANCE)
    return answer["versions"] == alone["versions"] and linked and equal


def sample_queries() -> list[bytes]:
    """Request bodies: captions of indexed samples, and thumbnails of some images."""
    index = PACKAGE / "artifacts" / "index"
    items, thumbnails = pd.read_parquet(index / "items.parquet"), Thumbnails(index / "previews.tar")
    rows = np.linspace(0, len(items) - 1, TEXTS + IMAGES, dtype=int).tolist()
    texts = [{"text": items["captions"].iloc[row][0], "k": K} for row in rows[:TEXTS]]
    images = [{"image": base64.b64encode(thumbnails.jpeg(row, 0)).decode(), "k": K} for row in rows[TEXTS:]]
    return [json.dumps(query).encode() for query in texts + images]


async def send_once(port: int, method: str, path: str, body: bytes = b"", headers: str = JSON) -> bytes:
    """The body of the answer to one request over a connection of its own; any status but 200 ends the benchmark."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    status, answer = await exchange(reader, writer, method, path, body, headers)
    writer.close()
    if status != 200:
        sys.exit(f"{method} {path}: {status} {answer.decode()}")
    return answer


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    body: bytes,
    headers: str = JSON,
) -> tuple[int, bytes]:
    """One HTTP/1.1 request by hand, because a client library would cost more than the service."""
    writer.write(f"{method} {path} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = re.search(r"content-length: (\d+)", answer)
    assert length
    return int(answer.split(" ", 2)[1]), await reader.readexactly(int(length[1]))


def _table(tally: Tally, elapsed: float, metrics: str) -> str:
    read = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if not line.startswith("#")}
    milliseconds = 1000 * np.array(tally.seconds)
    p50, p99 = np.percentile(milliseconds, [50, 99])
    batch = read["cots_batch_queries_sum"] / read["cots_batch_queries_count"]
    rows = {
        "clients": CLIENTS,
        "seconds": f"{elapsed:.1f}",
        "queries": len(tally.seconds),
        "queries/s": f"{len(tally.seconds) / elapsed:.0f}",
        "p50, ms": f"{p50:.0f}",
        "p99, ms": f"{p99:.0f}",
        "maximum, ms": f"{milliseconds.max():.0f}",
        "queries per batch": f"{batch:.1f}",
        "switches": f"{read['cots_switches_total'] - 2:.0f}",  # two are before the measurement
        "answers by version": ", ".join(f"{name}: {count}" for name, count in sorted(tally.answered.items())),
        "failed": len(tally.failed),
        "mixed": len(tally.mixed),
    }
    return "\n".join(f"{name:<20} {value}" for name, value in rows.items())


if __name__ == "__main__":
    main()
