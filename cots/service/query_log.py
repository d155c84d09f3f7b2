"""What was asked, one JSON line a query, for those who watch how questions change."""

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
from cots.search.queries import Query
from cots.service.metrics import ServiceMetrics

log = logging.getLogger(__name__)


class QueryLogWriter:
    """Files by day (UTC) in a folder; a query that cannot be written is counted, and answered all the same.

    Args:
        folder: created if it is not there.
        meters: told of queries that could not be written.

    Raises:
        BadInput: the folder cannot be made.
    """

    def __init__(self, folder: Path, meters: ServiceMetrics) -> None:
        self._folder, self._meters, self._lock = folder, meters, threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"cannot write queries to {folder}: {error.strerror}") from None

    def add(self, query: Query, vector: NDArray[np.float32], versions: dict[str, dict[str, Any]]) -> None:
        """Append a query: when, kind, text (null for a picture), the versions that answered, and its vector.

        Args:
            query: what was asked.
            vector: (D,), kept in half precision.
            versions: of the answer.
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
            with self._lock, (self._folder / f"{now:%Y-%m-%d}.jsonl").open("a", encoding="utf8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            self._meters.unlogged.inc()
            log.warning("a query could not be logged: %s", error)
