"""MSR-VTT: JSON files of videos and sentences, lists of its retrieval protocols, and folders of mp4 videos."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample, Split
from cots.data.sources.layout_io import layout_errors, make_sample, parse_split, read_csv, read_json, require_folder
from cots.errors import BadInput

Protocol = Literal["full", "1k-A"]

TEST_1K = "MSRVTT_JSFUSION_test.csv"  # columns key, vid_key, video_id, sentence
TRAIN_9K = "MSRVTT_train.9k.csv"  # column video_id
VIDEO_FILES = ("*.mp4", "*/*.mp4", "*/*/*.mp4")  # videos/, or TrainValVideo/ and TestVideo/, or videos/all/


class MsrvttSourceConfig(Config):
    """MSR-VTT's JSON and folders of mp4 videos."""

    kind: Literal["msrvtt"] = Field(default="msrvtt", description="MSR-VTT's JSON and folders of mp4 videos.")
    path: Path = Field(description="The folder of the release.")
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
        files = sorted(self.path.glob("MSRVTT_data.json")) or sorted(self.path.glob("*videodatainfo.json"))
        if not files:
            raise BadInput(f"{self.path} holds neither MSRVTT_data.json nor *videodatainfo.json of the MSR-VTT layout")
        videos = {name: video for file in files for name, video in _read_videos(file).items()}
        if self.protocol == "1k-A":
            videos = _select_1k_a(self.path, videos)
        mp4_files = {file.name: file for pattern in reversed(VIDEO_FILES) for file in sorted(self.path.glob(pattern))}
        contents = {name: mp4_files.get(f"{name}.mp4", self.path / f"{name}.mp4") for name in videos}
        return iter(
            [
                make_sample(name, contents[name], captions, split=split, origin=origin, media="video")
                for name, (split, captions, origin) in videos.items()
            ]
        )


class _Video(NamedTuple):
    split: Split
    captions: tuple[str, ...]
    origin: str


def _read_videos(file: Path) -> dict[str, _Video]:
    """The videos of one JSON file, in the release's split, each with all its sentences."""
    with layout_errors("MSR-VTT", file):
        content = read_json(file)
        captions = defaultdict(list)
        for sentence in content["sentences"]:
            captions[sentence["video_id"]].append(sentence["caption"])
        splits = {video["video_id"]: parse_split(video["split"], f"{file}") for video in content["videos"]}
    return {name: _Video(split, tuple(captions[name]), f"{file.name}: {name}") for name, split in splits.items()}


def _select_1k_a(path: Path, videos: dict[str, _Video]) -> dict[str, _Video]:
    """The training videos with all their sentences, then the test videos with one sentence each."""
    test = _read_test_videos(path)
    if (path / TRAIN_9K).exists():
        train = [row["video_id"] for row in read_csv(path / TRAIN_9K, "video_id")]
    else:
        train = [name for name in videos if name not in test]
    if shared := [name for name in train if name in test]:
        raise BadInput(f"{path}: {shared[0]} is both in {TRAIN_9K} and in {TEST_1K}, {len(shared)} videos in all")
    unknown = _Video("train", (), TRAIN_9K)
    return {name: videos.get(name, unknown)._replace(split="train") for name in train} | test


def _read_test_videos(path: Path) -> dict[str, _Video]:
    if not (path / TEST_1K).exists():
        raise BadInput(
            f"{path} holds no {TEST_1K}, the test videos of protocol 1k-A: put it there, or use protocol `full`"
        )
    test: dict[str, _Video] = {}
    for row in read_csv(path / TEST_1K, "video_id", "sentence"):
        name = row["video_id"]
        if name in test:
            raise BadInput(f"{path / TEST_1K} lists {name} twice: protocol 1k-A has one sentence per video")
        test[name] = _Video("test", (row["sentence"],), f"{TEST_1K}: {name}")
    return test
