"""A local cache of embeddings: what is indexed again need not be encoded again."""

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
    """Embeddings by the digest of the encoded content.

    The last digits of an embedding depend on the other inputs of its batch, so a cached embedding may differ from a
    new one by rounding: a rebuilt index finds the same items, but its bytes may differ.

    Args:
        stored: rows (R, D) by digest.
    """

    def __init__(self, stored: dict[bytes, Rows]) -> None:
        self._stored = stored
        self._used: dict[bytes, Rows] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; the cache is empty if there is no file, or a damaged one."""
        if not path.is_file():
            return cls({})
        try:
            arrays = load_file(path)
            rows = np.split(arrays["vectors"], np.cumsum(arrays["counts"])[:-1])
            digests = [bytes(digest) for digest in arrays["digests"]]
            return cls(dict(zip(digests, rows, strict=True)))
        except (KeyError, SafetensorError, ValueError) as error:
            log.warning("%s is damaged, everything is encoded anew: %s", path, error)
            return cls({})

    def save(self, path: Path) -> None:
        """Write the embeddings used since loading and drop all others, whose content left the data."""
        path.parent.mkdir(parents=True, exist_ok=True)
        digests = np.frombuffer(b"".join(self._used), np.uint8).reshape(len(self._used), -1)
        counts = np.array([len(rows) for rows in self._used.values()], np.int64)
        vectors = np.concatenate([*self._used.values()])
        with atomic_file(path) as partial:
            save_file({"digests": digests, "counts": counts, "vectors": vectors}, partial)

    def rows(self, digests: Sequence[bytes], encode: Callable[[list[int]], Sequence[Rows]]) -> list[Rows]:
        """The embeddings of each input; only inputs that are not in the cache are encoded.

        Args:
            digests: of the inputs.
            encode: called at most once, with the positions of inputs that are not in the cache; returns rows (R, D) of
                each.
        """
        cached = {digest: self._used.get(digest, self._stored.get(digest)) for digest in digests}
        missing = [position for position, digest in enumerate(digests) if cached[digest] is None]
        encoded = encode(missing) if missing else []
        self._used |= {digest: rows for digest, rows in cached.items() if rows is not None}
        self._used |= {digests[position]: rows for position, rows in zip(missing, encoded, strict=True)}
        return [self._used[digest] for digest in digests]


def digest_of(*parts: bytes) -> bytes:
    """Sha256 of a sequence of byte strings; it also depends on where each one ends."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.digest()
