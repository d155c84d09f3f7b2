"""MSR-VTT: JSON files of videos and sentences, lists of its retrieval protocols, and folders of mp4 videos."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.location import Location
from cots.data.samples import Sample, Split
from cots.data.sources.layout_io import (
    layout_errors,
    make_sample,
    parse_entries,
    parse_split,
    read_csv,
    read_json,
    require_folder,
)
from cots.errors import BadInput

Protocol = Literal["full", "1k-A"]

TEST_1K = "MSRVTT_JSFUSION_test.csv"  # columns key, vid_key, video_id, sentence
TRAIN_9K = "MSRVTT_train.9k.csv"  # column video_id
VIDEO_FILES = ("*.mp4", "*/*.mp4", "*/*/*.mp4")  # videos/, or TrainValVideo/ and TestVideo/, or videos/all/


class MsrvttSourceConfig(Config):
    """MSR-VTT's JSON and folders of mp4 videos."""

    kind: Literal["msrvtt"] = Field(default="msrvtt", description="MSR-VTT's JSON and folders of mp4 videos.")
    path: Location = Field(description="The folder of the release.")
    protocol: Protocol = Field(
        default="full",
        description="The release's own splits (full), or 1k-A. full: 6,513 train, 497 val and 2,990 test videos with "
        "20 captions each. 1k-A: the 1,000 test videos with one caption each of `MSRVTT_JSFUSION_test.csv` in the data "
        "folder, all others to train on (or those of `MSRVTT_train.9k.csv`) and no val, so `evaluate.split: test`.",
    )

    def read(self) -> Iterator[Sample]:
        """The videos of MSRVTT_data.json, or of the release's *videodatainfo.json.

        The mp4 files are in the folder, or in folders one or two below.

        Raises:
            BadInput: no such folder, a file is missing or has another layout, or train and test share a video.

        Source: MSR-VTT, CVPR 2016; 1k-A: JSFusion, arXiv:1808.02559; its 9,000 training videos: arXiv:2007.10639.
        """
        require_folder(self.path)
        files = sorted(self.path.glob("MSRVTT_data.json")) or sorted(self.path.glob("[!.]*videodatainfo.json"))
        if not files:
            raise BadInput(f"{self.path} holds neither MSRVTT_data.json nor *videodatainfo.json of the MSR-VTT layout")
        videos = [video for file in files for video in _read_videos(file)]
        if self.protocol == "1k-A":
            videos = _select_1k_a(self.path, videos)
        mp4_files = {file.name: file for pattern in reversed(VIDEO_FILES) for file in sorted(self.path.glob(pattern))}
        contents = [mp4_files.get(f"{video.id}.mp4", self.path / f"{video.id}.mp4") for video in videos]
        return iter([replace(video, content=content) for video, content in zip(videos, contents, strict=True)])


def _read_videos(file: Path) -> list[Sample]:
    """The videos of one JSON file, in the release's split, each with all its sentences; their contents are not set."""
    sentences = defaultdict[Any, list[Any]](list)

    def parse(video: dict[str, Any]) -> Sample:
        name, split = str(video["video_id"]), parse_split(video["split"], f"{file}")
        captions = [sentence["caption"] for sentence in sentences[video["video_id"]]]
        return _make_video(name, captions, split=split, listing=file)

    with layout_errors("MSR-VTT", file):
        content = read_json(file)
        for sentence in content["sentences"]:
            sentences[sentence["video_id"]].append(sentence)
        return parse_entries(content["videos"], parse, layout="MSR-VTT", path=file)


def _make_video(name: str, captions: object, *, split: Split, listing: Path) -> Sample:
    origin = f"{listing.name}: {name}"
    return make_sample(name, b"", captions, split=split, origin=origin, media="video", listing=listing)


def _select_1k_a(path: Path, videos: list[Sample]) -> list[Sample]:
    """The training videos with all their sentences, then the test videos with one sentence each."""
    test = _read_test_videos(path)
    if (path / TRAIN_9K).exists():
        known = {video.id: video for video in videos}
        names = [row["video_id"] for row in read_csv(path / TRAIN_9K, "video_id")]
        train = [known.get(name) or _make_video(name, (), split="train", listing=path / TRAIN_9K) for name in names]
    else:
        train = [video for video in videos if video.id not in test]
    if shared := [video.id for video in train if video.id in test]:
        raise BadInput(f"{path}: {shared[0]} is both in {TRAIN_9K} and in {TEST_1K}, {len(shared)} videos in all")
    return [replace(video, split="train") for video in train] + list(test.values())


def _read_test_videos(path: Path) -> dict[str, Sample]:
    if not (path / TEST_1K).exists():
        raise BadInput(
            f"{path} holds no {TEST_1K}, the test videos of protocol 1k-A: put it there, or use protocol `full`"
        )
    test: dict[str, Sample] = {}
    for row in read_csv(path / TEST_1K, "video_id", "sentence"):
        name = row["video_id"]
        if name in test:
            raise BadInput(f"{path / TEST_1K} lists {name} twice: protocol 1k-A has one sentence per video")
        test[name] = _make_video(name, row["sentence"], split="test", listing=path / TEST_1K)
    return test
