"""Untrusted samples: how many are in memory, and what is read of them."""

import datetime
import json
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from cots.data.ingest.ingestor import Ingestor, Rejected, ingest
from cots.data.ingest.metadata import MAX_CHARS, metadata_json
from cots.data.samples import Sample, sample_key
from cots.decode_threads import ITEMS_PER_THREAD, num_untrusted_threads
from cots.directions import Media

Encoded = Callable[..., bytes]


def ingestor(root: Path, **changed: Any) -> Ingestor:
    limits = {"size": 32, "max_frames": 3, "min_side": 8, "max_pixels": 50_000, "max_bytes": 10**6, "max_seconds": 60.0}
    return Ingestor(root=root, withdrawn={}, max_caption_chars=50, **limits | changed)


def sample(content: Path | bytes | tuple[bytes, ...], number: int = 0, media: Media = "image") -> Sample:
    return Sample(
        id=str(number),
        split="train",
        media=media,
        captions=("a",),
        is_mismatched=(False,),
        content=content,
        origin="here",
    )


def test_keys_are_unique_and_ascend_in_each_series_beyond_a_hundred_million_samples() -> None:
    numbers = [0, 1, 10**8 - 1, 10**8, 10**8 + 1, 2 * 10**8, 10**9, 5 * 10**9]
    series = [[sample_key(number, sample) for sample in numbers] for number in range(10)]
    assert [keys[:3] for keys in series[:2]] == [
        ["000000000", "000000001", "099999999"],
        ["100000000", "100000001", "199999999"],
    ]
    assert all(list(map(int, keys)) == sorted(map(int, keys)) for keys in series)
    assert len({int(key) for keys in series for key in keys}) == 10 * len(numbers)


def test_a_few_samples_for_each_thread_are_in_memory(tmp_path: Path, make_image: Encoded) -> None:
    given_out, settled = 0, 0

    def samples() -> Iterator[Sample]:
        nonlocal given_out
        for number in range(200):
            given_out += 1
            yield sample(make_image(seed=number), number)

    open_samples = ingestor(tmp_path)
    most = ITEMS_PER_THREAD * num_untrusted_threads(open_samples.max_pixels)
    for number, outcome in enumerate(ingest(samples(), open_samples)):
        assert outcome.id == str(number)
        assert given_out - settled <= most
        settled += 1
    assert settled == 200


@pytest.mark.parametrize("media", ["image", "video"])
def test_a_file_with_too_many_bytes_is_not_read(tmp_path: Path, media: Media) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**42)  # more than any memory; it takes no place on the disk
    outcome = ingestor(tmp_path)(sample(tmp_path / "large", media=media))
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.detail) == ("too many bytes", "4398046511104, at most 1000000 are read")


@pytest.mark.parametrize("media", ["image", "video"])
def test_bytes_that_are_in_memory_already_have_the_same_limit(tmp_path: Path, media: Media) -> None:
    contents = (bytes(11), (b"", bytes(11))) if media == "video" else (bytes(11),)
    for content in contents:
        outcome = ingestor(tmp_path, max_bytes=10)(sample(content, media=media))
        assert isinstance(outcome, Rejected)
        assert outcome.reason == "too many bytes"


def test_a_video_that_takes_too_long_is_rejected(tmp_path: Path, make_video: Encoded) -> None:
    outcome = ingestor(tmp_path, max_seconds=1e-9)(sample(make_video(), media="video"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "too slow"


def test_a_link_that_leads_to_itself_spoils_its_own_sample_alone(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    outcome = ingestor(tmp_path)(sample(tmp_path / "loop.jpg"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "no such file"


def test_a_jpeg_that_holds_together_by_its_metadata_alone_spoils_its_own_sample(
    tmp_path: Path, make_image: Encoded
) -> None:
    whole = make_image(40, 32)
    middle = (whole.index(b"\xff\xda") + len(whole)) // 2
    damaged = whole[:middle] + b"\xff\xe1\x40\x00" + whole[middle:]  # a profile in the midst of the pixels
    outcome = ingestor(tmp_path)(sample(damaged))
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, "without its metadata" in outcome.detail) == ("damaged", True)


def test_metadata_become_json_that_every_reader_takes() -> None:
    values = {
        "a": float("nan"),
        "k\ud800": ["x\udcff", {"y": float("inf")}],
        "day": datetime.date(2020, 1, 2),
        "e": "\\udcff",
    }
    text = metadata_json(values)
    assert text is not None
    text.encode()
    expected = {"a": None, "k\\ud800": ["x\\udcff", {"y": None}], "day": "2020-01-02", "e": "\\udcff"}
    assert json.loads(text, parse_constant=pytest.fail) == expected
    assert metadata_json({}) is None


def test_a_sample_has_no_more_metadata_than_a_result_should_carry() -> None:
    deep: list[Any] = reduce(lambda inner, _: [inner], range(900), [])
    assert metadata_json({"deep": deep, "long": "x" * MAX_CHARS, "fits": 1}) == '{"fits": 1}'
    assert len(metadata_json({f"column {number}": "x" * 100 for number in range(1000)}) or "") < 1.1 * MAX_CHARS
    assert metadata_json({"deep": deep}) is None
