import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from cots.data.image_decoding import MAX_SCANS, UnusableImage, decode_image
from cots.data.image_hashes import image_hashes
from cots.data.images import downscale, encode_jpeg, store_image

Encoded = Callable[..., bytes]


def decode(data: bytes, *, max_pixels: int = 10_000, min_side: int = 16) -> Image.Image:
    return decode_image(data, max_pixels=max_pixels, min_side=min_side)


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_scans(number: int) -> bytes:
    """A progressive JPEG of so many scans, the last of them again and again."""
    whole = file_of(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True)
    scans, last = whole.count(b"\xff\xda"), whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * (number - scans) + whole[-2:]


def tiff(width: int, height: int, body: bytes, tags: dict[str, int], *, byte_order: str = "<") -> bytes:
    """A grey TIFF; the names of tags are those of the specification."""
    numbers = {"BitsPerSample": 258, "Compression": 259, "PhotometricInterpretation": 262, "StripOffsets": 273,
               "TileWidth": 322, "TileLength": 323, "TileOffsets": 324, "TileByteCounts": 325, "SampleFormat": 339,
               "StripByteCounts": 279, "RowsPerStrip": 278}  # fmt: skip
    usual = {"BitsPerSample": 8, "Compression": 1, "PhotometricInterpretation": 1}
    strip = {"StripOffsets": 8, "RowsPerStrip": height, "StripByteCounts": len(body)}
    chosen = usual | ({} if "TileWidth" in tags else strip) | tags
    values = {256: width, 257: height, 277: 1} | {numbers[name]: value for name, value in chosen.items()}
    entries = b"".join(struct.pack(f"{byte_order}HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    start = (b"II*\0" if byte_order == "<" else b"MM\0*") + struct.pack(f"{byte_order}I", 8 + len(body))
    return start + body + struct.pack(f"{byte_order}H", len(values)) + entries + bytes(4)


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


def test_a_jpeg_with_scans_without_end_is_refused_before_it_is_decoded() -> None:
    assert decode(with_scans(MAX_SCANS)).size == (64, 64)
    with pytest.raises(UnusableImage) as raised:
        decode(with_scans(MAX_SCANS + 1))
    assert raised.value.reason == "too many scans"


def test_what_follows_a_jpeg_is_neither_counted_nor_stored(make_image: Encoded) -> None:
    whole = make_image(40, 32)
    stored = store_image(whole + b"\xff\xda" * 1000, size=32, max_pixels=10_000, min_side=16)
    assert stored.jpeg == whole


@pytest.mark.parametrize("end", [b"\xff\xff\xd9", b"\xff\xff\xff\xd9"])
def test_a_small_jpeg_keeps_its_pixels_however_it_ends(make_image: Encoded, end: bytes) -> None:
    whole = make_image(40, 32)
    stored = store_image(whole[:-2] + end, size=32, max_pixels=10_000, min_side=16).jpeg
    assert decode(stored).tobytes() == decode(whole).tobytes()


def test_a_small_tiff_with_a_huge_tile_is_refused() -> None:
    body = zlib.compress(bytes(64 * 64))

    def tiled(side: int) -> bytes:
        place = {"TileOffsets": 8, "TileByteCounts": len(body)}
        return tiff(64, 64, body, {"Compression": 8, "TileWidth": side, "TileLength": side} | place)

    assert decode(tiled(64)).size == (64, 64)
    with pytest.raises(UnusableImage) as raised:
        decode(tiled(16_000))
    assert raised.value.reason == "too many pixels"


def test_a_small_icon_of_a_huge_image_is_refused() -> None:
    def icon(side: int) -> bytes:
        image = file_of(Image.new("L", (side, side)), "PNG")
        return struct.pack("<HHHBBBBHHII", 0, 1, 1, 64, 64, 0, 0, 1, 32, len(image), 22) + image

    assert decode(icon(64)).size == (64, 64)
    with pytest.raises(UnusableImage) as raised:
        decode(icon(1000))
    assert raised.value.reason == "too many pixels"


def test_postscript_is_not_an_image_and_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for image in (Image.new("RGB", (40, 32), "red"), Image.new("L", (40, 32))):
        with pytest.raises(UnusableImage) as raised:
            decode(file_of(image, "EPS"))
        assert raised.value.reason == "not a picture"
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["PPM", "SGI", "PCX", "DDS"])
def test_kinds_that_no_data_set_has_are_not_decoded(kind: str) -> None:
    with pytest.raises(UnusableImage):
        decode(file_of(Image.new("RGB", (40, 32)), kind))


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("MPO", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (40, 32))]}),
        ("PNG", "LA", {}),
        ("PNG", "P", {"transparency": bytes([0, 255])}),
        ("GIF", "P", {"save_all": True, "append_images": [Image.new("P", (40, 32), 3)]}),
        ("WEBP", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (40, 32))]}),
        ("TIFF", "LAB", {}),
        ("AVIF", "RGB", {}),
        ("JPEG2000", "RGB", {}),
        ("ICO", "RGBA", {"sizes": [(40, 32)]}),
        ("TGA", "RGB", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_every_kind_that_data_sets_have_is_decoded(kind: str, mode: str, options: dict[str, object]) -> None:
    image = Image.new("RGB", (40, 32), "white").convert(mode)
    assert decode(file_of(image, kind, **options)).size == (40, 32)


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


GREYS = np.tile(np.linspace(0, 65535, 96).astype(np.uint16), (32, 1))


def packed_12_bits(levels: NDArray[np.uint16]) -> bytes:
    """Two levels in three bytes."""
    pairs = (levels >> 4).astype(np.uint32).reshape(-1, 2)
    both = pairs[:, 0] << 12 | pairs[:, 1]
    return np.stack([both >> 16, both >> 8 & 255, both & 255], axis=1).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        file_of(Image.fromarray(GREYS), "PNG"),
        file_of(Image.fromarray(GREYS), "JPEG2000"),
        file_of(Image.fromarray(GREYS), "TIFF"),
        tiff(96, 32, GREYS.astype(">u2").tobytes(), {"BitsPerSample": 16}, byte_order=">"),
        tiff(96, 32, (65535 - GREYS).tobytes(), {"BitsPerSample": 16, "PhotometricInterpretation": 0}),
        tiff(96, 32, packed_12_bits(GREYS), {"BitsPerSample": 12}),
        tiff(96, 32, (GREYS ^ 0x8000).tobytes(), {"BitsPerSample": 16, "SampleFormat": 2}),
        tiff(96, 32, GREYS.astype(np.uint32).tobytes(), {"BitsPerSample": 32}),
        tiff(96, 32, (GREYS.astype(np.uint32) * 65537).tobytes(), {"BitsPerSample": 32}),
        file_of(Image.fromarray(GREYS.astype(np.int32)), "TIFF"),
        file_of(Image.fromarray(GREYS / np.float32(65535)), "TIFF"),
        file_of(Image.fromarray(np.where(GREYS == 0, np.float32("nan"), GREYS.astype(np.float32))), "TIFF"),
    ],
    ids=["png", "jpeg2000", "tiff", "big endian", "white is 0", "12 bits", "signed", "32 bits", "unsigned 32 bits",
         "signed 32 bits", "float", "float with gaps"],
)  # fmt: skip
def test_greys_of_every_depth_are_scaled_and_not_clipped(data: bytes) -> None:
    np.testing.assert_allclose(np.asarray(decode(data))[16, :, 0], np.linspace(0, 255, 96), atol=1)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_deep_grey_image_without_contrast_stays_black_or_white(mode: str) -> None:
    assert decode(file_of(Image.new(mode, (20, 20), 0), "TIFF")).getextrema() == ((0, 0),) * 3
    assert decode(file_of(Image.new(mode, (20, 20), 9), "TIFF")).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("kind", ["text", "compressed text", "profile", "orientation"])
def test_large_or_damaged_metadata_do_not_cost_the_image(kind: str) -> None:
    image, texts = Image.new("RGB", (40, 32), "red"), PngImagePlugin.PngInfo()
    texts.add_itxt("history", "step; " * 500_000, zip=kind != "text")
    options: dict[str, object] = {"pnginfo": texts}
    if kind == "profile":
        options = {"icc_profile": bytes(2_000_000)}
    if kind == "orientation":
        options = {"exif": b"Exif\0\0no such thing"}
    for form in ("PNG", "JPEG", "WEBP") if kind == "orientation" else ("PNG",):
        assert decode(file_of(image, form, **options)).size == (40, 32)


def test_an_upright_image_keeps_its_orientation_however_large_its_texts_are() -> None:
    texts, exif = PngImagePlugin.PngInfo(), Image.Exif()
    texts.add_itxt("history", "step; " * 500_000, zip=True)
    exif[0x0112] = 6
    assert decode(file_of(Image.new("RGB", (40, 20)), "PNG", pnginfo=texts, exif=exif)).size == (20, 40)


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


@pytest.mark.parametrize("size", [32, 16])
@pytest.mark.parametrize("keep_rgb", [False, True])
def test_nothing_is_stored_but_the_pixels(make_image: Encoded, size: int, keep_rgb: bool) -> None:
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 29.0)}  # GPS
    exif[0x9286] = "at home"
    hidden: dict[str, object] = {"exif": exif, "comment": b"owner", "icc_profile": b"profile", "xmp": b"<x:xmpmeta/>"}
    data, plain = (make_image(40, 32, keep_rgb=keep_rgb, **extra) for extra in (hidden, {}))
    stored = store_image(data, size=size, max_pixels=10_000, min_side=16).jpeg
    assert stored == store_image(plain, size=size, max_pixels=10_000, min_side=16).jpeg
    with Image.open(io.BytesIO(stored)) as image:
        assert not image.getexif()
        assert image.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe", "adobe_transform"}
    if size == 32:
        assert decode(stored).tobytes() == decode(data).tobytes()
    for kind in ("PNG", "WEBP"):
        assert store_image(make_image(40, 32, kind=kind, exif=exif), size=64, max_pixels=10_000, min_side=16).jpeg


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_image_that_is_too_long_for_a_jpeg_is_rejected(kind: str) -> None:
    strip = file_of(Image.new("L", (70_000, 60)), kind)
    with pytest.raises(UnusableImage) as raised:
        store_image(strip, size=64, max_pixels=10**7, min_side=16)
    assert raised.value.reason == "too long"
    stored = store_image(strip, size=32, max_pixels=10**7, min_side=16)
    assert Image.open(io.BytesIO(stored.jpeg)).size == (37_333, 32)


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
