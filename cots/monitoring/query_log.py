"""What people asked the search service, read back from the lines that it writes."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, Base64Bytes, BaseModel

from cots.errors import BadInput

MAX_LINE = 100_000  # bytes; a longer line is none of the service's
SHOWN_DIGITS = 12  # of a digest
UNIT = 0.02  # how far from 1 half precision may leave the norm of a unit row

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedQueries:
    """Queries that one model encoded, each content once.

    Attributes:
        texts: N texts; text_vectors: (N, D) unit rows.
        picture_vectors: (M, D) unit rows; the pictures themselves are not kept.
        left_out: how many lines are not among them, by reason.
    """

    texts: tuple[str, ...]
    text_vectors: Rows
    image_vectors: Rows
    num_skipped: Mapping[str, int]


class _Line(BaseModel):
    """What is read of a line; the service writes more."""

    when: AwareDatetime
    kind: Literal["text", "image"]
    text: str | None
    encoders_digest: str
    vector: Base64Bytes  # little-endian float16


class _Query(NamedTuple):
    when: datetime
    text: str | None  # None for a picture
    vector: Rows


def read_queries(folder: Path, *, encoders: str, dim: int, newest: int) -> LoggedQueries:
    """The newest queries in a folder of JSON lines (`*.jsonl`).

    A content that was asked often counts once, and a text that is the beginning of another one not at all: a page that
    answers while somebody types logs every beginning.

    Args:
        folder: that `cots serve --log-queries` writes to.
        encoders: digest of the model whose vectors are wanted; those of others cannot be compared.
        dim: of these vectors.
        newest: how many queries of these encoders to take, at most.

    Raises:
        BadInput: there is no such folder, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise BadInput(f"no folder of queries {folder}: `cots serve --log-queries {folder}` writes one")
    left_out: Counter[str] = Counter()
    usable = _usable(folder, encoders, dim, left_out)
    queries = heapq.nlargest(newest, usable, key=lambda query: query.when)
    left_out["older"] = left_out.pop("read", 0) - len(queries)
    said = {" ".join(query.text.split()): query.vector for query in queries if query.text is not None}
    texts = _whole(said)
    pictures = {query.vector.tobytes(): query.vector for query in queries if query.text is None}
    left_out["half typed"] = len(said) - len(texts)
    left_out["repeated"] = len(queries) - len(said) - len(pictures)
    return LoggedQueries(
        texts=texts,
        text_vectors=_stacked([said[text] for text in texts], dim),
        image_vectors=_stacked([pictures[key] for key in sorted(pictures)], dim),
        num_skipped={reason: number for reason, number in sorted(left_out.items()) if number},
    )


def _usable(folder: Path, encoders: str, dim: int, left_out: Counter[str]) -> Iterator[_Query]:
    """Queries of these encoders; what else there is, is counted."""
    for line in _lines(folder):
        try:
            read = _Line.model_validate_json(line)
            vector = _vector(read.vector, dim) if read.encoders_digest == encoders else None
        except ValueError:  # pydantic's are of this kind
            left_out["unreadable"] += 1
            continue
        if vector is None:
            left_out[f"by encoders {read.encoders_digest[:SHOWN_DIGITS]}"] += 1
            continue
        left_out["read"] += 1
        yield _Query(when=read.when, text=(read.text or "") if read.kind == "text" else None, vector=vector)


def _lines(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.jsonl")):
        try:
            with path.open("rb") as file:
                yield from iter(lambda: file.readline(MAX_LINE), b"")
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _vector(data: bytes, dim: int) -> Rows:
    if len(data) != 2 * dim:
        raise ValueError(f"{len(data)} bytes are no {dim} half-precision numbers")
    vector = np.frombuffer(data, "<f2").astype(np.float32)
    if not abs(float(np.linalg.norm(vector)) - 1) <= UNIT:  # also where it is no number
        raise ValueError("not a unit row")
    return vector


def _whole(texts: Mapping[str, object]) -> tuple[str, ...]:
    """The texts in order, without those that another one goes on from: in order, it is the next that does."""
    ordered = sorted(texts)
    return tuple(text for text, following in pairwise([*ordered, ""]) if not text or not following.startswith(text))


def _stacked(rows: list[Rows], dim: int) -> Rows:
    return np.stack(rows) if rows else np.zeros((0, dim), np.float32)
