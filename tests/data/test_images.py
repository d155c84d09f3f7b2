import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from cots.data.image_decoding import UnusableImage, decode_image
from cots.data.image_hashes import image_hashes
from cots.data.images import downscale, encode_jpeg, store_image

Encoded = Callable[..., bytes]


def decode(data: bytes, *, max_pixels: int = 10_000, min_side: int = 16) -> Image.Image:
    return decode_image(data, max_pixels=max_pixels, min_side=min_side)


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_an_unusable_image_is_rejected_with_its_reason(make_image: Encoded) -> None:
    whole = make_image()
    cases = {
        "empty file": b"",
        "not a picture": b"these are words and not an image",
        "cut short": whole[: len(whole) // 2],
        "too small": make_image(15, 40),
        "too many pixels": make_image(101, 100),
    }
    for reason, data in cases.items():
        with pytest.raises(UnusableImage) as raised:
            decode(data)
        assert raised.value.reason == reason, raised.value


@pytest.mark.parametrize("side", [9_500, 10_000, 30_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(UnusableImage) as raised:
        decode(png_that_claims(side, side), max_pixels=50_000_000)
    assert raised.value.reason == "too many pixels"


def test_damaged_bytes_give_an_image_or_a_reason_and_no_other_error(make_image: Encoded) -> None:
    rng = np.random.default_rng(0)
    reasons = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = np.frombuffer(make_image(kind=kind), dtype=np.uint8)
        for _ in range(40):
            broken = whole.copy()
            where = rng.integers(0, len(broken), 8)
            broken[where] = rng.integers(0, 256, 8)
            try:
                assert decode(broken[: rng.integers(1, len(broken))].tobytes()).mode == "RGB"
            except UnusableImage as error:
                reasons.append(error.reason)
    assert len(set(reasons)) >= 3


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "I;16", "RGB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.new("L", (20, 20), 255)
    image = Image.new("I;16", (20, 20), 65535) if mode == "I;16" else grey.convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    rgb = decode(file.getvalue())
    assert rgb.mode == "RGB"
    assert rgb.getextrema() == ((255, 255),) * 3


def test_transparent_parts_become_white() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 10, 20))
    file = io.BytesIO()
    image.save(file, "PNG")
    rgb = decode(file.getvalue())
    assert rgb.getpixel((2, 2)) == (0, 0, 255)
    assert rgb.getpixel((15, 2)) == (255, 255, 255)


def test_an_image_taken_sideways_is_stored_upright(make_image: Encoded) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    data = make_image(40, 20, exif=exif)
    stored = store_image(data, size=100, max_pixels=10_000, min_side=16)
    assert (stored.width, stored.height) == (20, 40)
    assert Image.open(io.BytesIO(stored.jpeg)).size == (20, 40)
    assert Image.open(io.BytesIO(stored.jpeg)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(("orientation", "turned"), [(1, False), (3, False), (6, True), (8, True)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_that_is_decoded_smaller_looks_the_same(mode: str, orientation: int, turned: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    coarse = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((701, 501)).convert(mode).save(file, "JPEG", quality=95, exif=exif)
    stored = store_image(file.getvalue(), size=32, max_pixels=10**6, min_side=16)
    assert (stored.width, stored.height) == ((501, 701) if turned else (701, 501))
    whole = downscale(decode_image(file.getvalue(), max_pixels=10**6, min_side=16), 32)
    small = Image.open(io.BytesIO(stored.jpeg))
    assert small.size == whole.size == ((32, 45) if turned else (45, 32))
    difference = np.abs(np.asarray(small, np.float64) - np.asarray(whole, np.float64))
    assert difference.mean() < 3, difference.mean()


def test_a_small_plain_jpeg_keeps_its_bytes(make_image: Encoded) -> None:
    data = make_image(40, 32, quality=50)
    assert store_image(data, size=32, max_pixels=10_000, min_side=16).jpeg == data


@pytest.mark.parametrize(("kind", "size"), [("PNG", 32), ("JPEG", 31)])
def test_other_images_are_encoded_again(make_image: Encoded, kind: str, size: int) -> None:
    data = make_image(40, 32, kind=kind)
    stored = store_image(data, size=size, max_pixels=10_000, min_side=16)
    assert stored.jpeg != data
    assert Image.open(io.BytesIO(stored.jpeg)).format == "JPEG"
    assert (stored.width, stored.height) == (40, 32)


@pytest.mark.parametrize(
    ("before", "after"),
    [((300, 200), (96, 64)), ((200, 300), (64, 96)), ((64, 500), (64, 500)), ((999, 65), (984, 64))],
)
def test_the_shorter_side_is_reduced_to_the_size_and_nothing_is_enlarged(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert downscale(Image.new("RGB", before), 64).size == after


def test_a_long_strip_keeps_at_least_one_pixel_across() -> None:
    assert downscale(Image.new("RGB", (5000, 80)), 64).size == (4000, 64)


def test_hashes_distinguish_equal_similar_and_different_images() -> None:
    ramp = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp], axis=2))
    alike = Image.open(io.BytesIO(encode_jpeg(image)))
    other = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixel_hash, dhash = image_hashes(image.copy())
    assert image_hashes(image) == (pixel_hash, dhash)
    assert image_hashes(alike)[0] != pixel_hash
    bits = [(int(image_hashes(x)[1], 16) ^ int(dhash, 16)).bit_count() for x in (alike, other)]
    assert bits[0] <= 4 < 16 < bits[1]


def test_images_with_the_same_bytes_and_another_shape_have_different_hashes() -> None:
    assert image_hashes(Image.new("RGB", (20, 30)))[0] != image_hashes(Image.new("RGB", (30, 20)))[0]
