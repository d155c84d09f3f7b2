"""Hashes of images: equal for the same pixels, or close for images that look alike."""

import hashlib

import numpy as np
from PIL import Image


def image_hashes(image: Image.Image) -> tuple[str, str]:
    """An exact hash and a perceptual hash of an image.

    Returns:
        A hash of size and pixels, 32 hex digits; and a difference hash of 64 bits, 16 hex digits, whose Hamming
        distance is small for images that look alike.
    """
    pixel_hash = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:32]
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    difference_hash = np.packbits(grey[:, 1:] > grey[:, :-1])
    return pixel_hash, difference_hash.tobytes().hex()
