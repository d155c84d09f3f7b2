"""Vectors that an encoder made before, kept on this machine: what is indexed again need not be encoded again."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cots.files import atomic_file

log = logging.getLogger(__name__)
Rows = NDArray[np.float32]


class EmbeddingCache:
    """Vectors by the digest of what was encoded.

    A vector depends in its last digits on who shared its batch, so a remembered one is not bit for bit what a new pass
    would give: a rebuilt index finds the same, its bytes may differ.

    Args:
        before: rows (R, D) by digest.
    """

    def __init__(self, before: dict[bytes, Rows]) -> None:
        self._before = before
        self._asked: dict[bytes, Rows] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; where there is nothing, or nothing readable, nothing is remembered."""
        if not path.is_file():
            return cls({})
        try:
            stored = load_file(path)
            rows = np.split(stored["vectors"], np.cumsum(stored["counts"])[:-1])
            digests = [bytes(digest) for digest in stored["digests"]]
            return cls(dict(zip(digests, rows, strict=True)))
        except (KeyError, SafetensorError, ValueError) as error:
            log.warning("%s is damaged, everything is encoded anew: %s", path, error)
            return cls({})

    def save(self, path: Path) -> None:
        """Keep what was asked for since loading and forget the rest, which left the data."""
        path.parent.mkdir(parents=True, exist_ok=True)
        digests = np.frombuffer(b"".join(self._asked), np.uint8).reshape(len(self._asked), -1)
        counts = np.array([len(rows) for rows in self._asked.values()], np.int64)
        vectors = np.concatenate([*self._asked.values()])
        with atomic_file(path) as aside:
            save_file({"digests": digests, "counts": counts, "vectors": vectors}, aside)

    def rows(self, digests: Sequence[bytes], encode: Callable[[list[int]], Sequence[Rows]]) -> list[Rows]:
        """The rows of each thing, of which only the unknown ones are encoded.

        Args:
            digests: of the things.
            encode: called at most once, with the places of those that are unknown; gives the rows (R, D) of each.
        """
        known = {digest: self._asked.get(digest, self._before.get(digest)) for digest in digests}
        places = [place for place, digest in enumerate(digests) if known[digest] is None]
        made = encode(places) if places else []
        self._asked |= {digest: rows for digest, rows in known.items() if rows is not None}
        self._asked |= {digests[place]: rows for place, rows in zip(places, made, strict=True)}
        return [self._asked[digest] for digest in digests]


def digest_of(*parts: bytes) -> bytes:
    """sha256 of some parts, which no others share: where each ends counts too."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.digest()
