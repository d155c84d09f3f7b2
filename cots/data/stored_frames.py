"""Frames as shards store them: small upright RGB JPEGs."""

import io

from PIL import Image

from cots.data.samples import StoredSample
from cots.errors import BadInput


def open_frame(sample: StoredSample, index: int) -> Image.Image:
    """Decode a frame of a stored sample.

    Raises:
        BadInput: it cannot be decoded, or is no JPEG and so not what stage `prepare` wrote.
    """
    try:
        return Image.open(io.BytesIO(sample.frames[index]), formats=("JPEG",)).convert("RGB")
    except OSError as error:
        raise BadInput(f"a stored frame of {sample.id} is damaged ({error}): run `dvc repro --force prepare`") from None
