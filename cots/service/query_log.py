"""The query log: one JSON line per query, the input of drift monitoring."""

import base64
import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cots.errors import BadInput
from cots.private_files import open_private
from cots.search_engine.queries import Query
from cots.service.metrics import ServiceMetrics

log = logging.getLogger(__name__)


class QueryLogWriter:
    """Writes one file per day (UTC); a query that cannot be written is counted and still answered.

    Queries are personal data: only the account of the service can read the files.

    Args:
        folder: created if it does not exist.
        metrics: counts queries that could not be written.

    Raises:
        BadInput: the folder cannot be created.
    """

    def __init__(self, folder: Path, metrics: ServiceMetrics) -> None:
        self._folder, self._metrics, self._lock = folder, metrics, threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"cannot write queries to {folder}: {error.strerror}") from None

    def add(self, query: Query, vector: NDArray[np.float32], versions: dict[str, dict[str, Any]]) -> None:
        """Append a query with its time, kind, text (null for an image), the versions that answered, and its embedding.

        Args:
            query: the query.
            vector: (D,), its embedding, stored in half precision.
            versions: that answered.
        """
        now = datetime.now(UTC)
        text = query.content if isinstance(query.content, str) else None
        line = {
            "when": now.isoformat(timespec="milliseconds"),
            "kind": "image" if text is None else "text",
            "text": text,
            "index_version": versions["index"]["version"],
            "encoders_digest": versions["encoders"]["digest"],
            "vector": base64.b64encode(vector.astype("<f2").tobytes()).decode(),
        }
        try:
            with self._lock, open_private(self._folder / f"{now:%Y-%m-%d}.jsonl", "a") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            self._metrics.unlogged.inc()
            log.warning("a query could not be logged: %s", error)
