"""The segments of a JPEG file, read without decoding it."""

import re
from collections.abc import Iterator

START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN, COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
ADOBE = 0xEE  # APP14: how the colours are coded
APPLICATION = range(0xE1, 0xF0)  # APP1 to APP15: EXIF with GPS, XMP, colour profiles, thumbnails; APP0 is JFIF's
MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")  # none of coded data: 00 and restarts follow an FF there


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and the start of each segment up to the end of the first image; coded data belong to theirs.

    Args:
        data: begins with a JPEG; what follows its end, such as a phone's video, is left out.
    """
    position = 0
    while match := MARKER.search(data, position):
        [marker] = match[1]
        yield marker, match.end() - 2  # of several FF the last
        if marker == END_OF_IMAGE:
            return
        length = 0 if marker == START_OF_IMAGE else int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + length


def count_scans(data: bytes) -> int:
    """Number of scans of a JPEG: 1, or about 10 in a progressive one. The time to decode grows with it."""
    return sum(marker == START_OF_SCAN for marker, _ in jpeg_segments(data))


def strip_metadata(data: bytes) -> bytes:
    """A JPEG with the same pixels, without EXIF, comments, profiles and what follows its end."""
    segments = list(jpeg_segments(data))
    starts = [start for _, start in segments]
    ends = [*starts[1:], starts[-1] + 2]
    dropped = {COMMENT, *APPLICATION} - {ADOBE}
    return b"".join(data[s:e] for (m, s), e in zip(segments, ends, strict=True) if m not in dropped)
