"""Digests by which images are found again: exact, and of how they look."""

import hashlib

import numpy as np
from PIL import Image


def image_hashes(picture: Image.Image) -> tuple[str, str]:
    """What tells a picture from others: a hash that is equal for equal pixels, and one that is near for alike ones.

    Returns:
        32 hex digits; and a difference hash of 64 bits as 16 hex digits, whose Hamming distance is small
        for pictures that look alike.
    """
    pixels = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()[:32]
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    rising = np.packbits(grey[:, 1:] > grey[:, :-1])
    return pixels, rising.tobytes().hex()
