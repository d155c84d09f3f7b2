"""Bytes that nobody foresaw: damaged images and videos become samples or rejects, and nothing else."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, strategies
from PIL import Image

from cots.data.ingest.ingestor import IngestedSample, Rejected
from cots.directions import Media
from tests.drawn import drawn

from .test_ingest import ingestor, sample

SECONDS = 10.0  # for a damaged sample of a few kilobytes


def encoded_images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112], exif[0x8825] = 6, {1: "N"}
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "JPEG", {"exif": exif, "comment": b"mine"}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", {"exif": exif}),
        (image.convert("P"), "PNG", {"transparency": 3}),
        (image.convert("I;16"), "PNG", {}),
        (image.convert("RGBA"), "WEBP", {"lossless": True}),
        (image.convert("P"), "GIF", {"save_all": True, "append_images": [image.convert("P")]}),
        (image.convert("RGBA"), "TIFF", {"compression": "tiff_lzw"}),
        (image.convert("F"), "TIFF", {}),
        (image, "AVIF", {"exif": exif}),
        (image, "BMP", {}),
        (image, "JPEG2000", {}),
        (image.convert("RGBA"), "ICO", {"sizes": [(64, 64)]}),
        (image, "TGA", {"compression": "tga_rle"}),
    ]
    files = []
    for form, kind, options in kinds:
        file = io.BytesIO()
        form.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def encoded_videos() -> list[bytes]:
    files = []
    for kind, codec in (("mp4", "libx264"), ("matroska", "libx265"), ("webm", "libvpx-vp9"), ("webm", "libvpx"),
                        ("avi", "mpeg4"), ("avi", "mjpeg"), ("mov", "mpeg2video")):  # fmt: skip
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            options = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {}
            stream: Any = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(8):
                pixels = np.full((48, 64, 3), 30 * number, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        files.append(file.getvalue())
    return files


POSITIONS = strategies.floats(0, 1, exclude_max=True)  # as fractions of the file
EDITS = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("put"), POSITIONS, strategies.sampled_from([bytes(4), b"\xff" * 4, b"\x7f"])),
        strategies.tuples(strategies.just("put"), POSITIONS, strategies.binary(min_size=1, max_size=4)),
        strategies.tuples(strategies.just("insert"), POSITIONS, strategies.binary(min_size=1, max_size=64)),
        strategies.tuples(strategies.just("remove"), POSITIONS, strategies.sampled_from([b"1", b"4444", b"8" * 64])),
        strategies.tuples(strategies.just("cut"), POSITIONS, strategies.just(b"")),
    ),
    min_size=1,
    max_size=8,
)


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, fraction, content in edits:
        position = int(fraction * len(data))
        rest = {"put": position + len(content), "insert": position, "remove": position + len(content), "cut": len(data)}
        data = data[:position] + (content if kind in ("put", "insert") else b"") + data[rest[kind] :]
    return data


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what Pillow says of damaged metadata
@pytest.mark.parametrize(("media", "encode"), [("image", encoded_images), ("video", encoded_videos)])
def test_bytes_edited_at_random_give_a_sample_or_a_reject_within_seconds(
    media: Media, encode: Callable[[], list[bytes]], tmp_path: Path
) -> None:
    files, open_sample = encode(), ingestor(tmp_path)
    for file in files:
        assert isinstance(open_sample(sample(file, media=media)), IngestedSample)

    @given(file=strategies.sampled_from(files), edits=EDITS)
    @drawn(200)
    def holds(file: bytes, edits: list[tuple[str, float, bytes]]) -> None:
        started = time.thread_time()
        outcome = open_sample(sample(edited(file, edits), media=media))
        assert time.thread_time() - started < SECONDS
        if isinstance(outcome, Rejected):
            assert outcome.detail
            return
        for frame in outcome.frames:
            with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
                assert image.convert("RGB").info.keys().isdisjoint({"exif", "comment", "icc_profile"})

    holds()
