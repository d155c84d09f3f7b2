"""MSR-VTT: JSON files that name videos and sentences, lists of its retrieval protocols, and folders of mp4 clips."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample, Split
from cots.data.sources.layout_io import laid_out_as, make_sample, read_csv, read_json, require_folder, split_named
from cots.errors import BadInput

Protocol = Literal["full", "1k-A"]

TEST_1K = "MSRVTT_JSFUSION_test.csv"  # key, vid_key, video_id, sentence
TRAIN_9K = "MSRVTT_train.9k.csv"  # video_id
CLIPS = ("*.mp4", "*/*.mp4", "*/*/*.mp4")  # videos/, or TrainValVideo/ and TestVideo/, or videos/all/


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
        """The samples of the release."""
        return read_msrvtt(self.path, protocol=self.protocol)


class _Video(NamedTuple):
    split: Split
    captions: tuple[str, ...]
    origin: str


def read_msrvtt(path: Path, *, protocol: Protocol) -> Iterator[Sample]:
    """The clips of MSRVTT_data.json, or of the release's *videodatainfo.json.

    Args:
        path: the folder with these files; clips lie in it, or in folders one or two below.
        protocol: `full` is the release's own split, 6,513 train, 497 val and 2,990 test videos with all sentences of
            each. `1k-A` is the one that most results are published on: 1,000 test videos with one sentence each, as
            MSRVTT_JSFUSION_test.csv lists them, and for training the 9,000 others, or those of MSRVTT_train.9k.csv
            where that file is there; it has no val.

    Raises:
        BadInput: no such folder, a file is missing or not in its layout, or train and test share a video.

    Source: MSR-VTT, CVPR 2016; 1k-A is of JSFusion, arXiv:1808.02559, its 9,000 videos of arXiv:2007.10639.
    """
    require_folder(path)
    tables = sorted(path.glob("MSRVTT_data.json")) or sorted(path.glob("*videodatainfo.json"))
    if not tables:
        raise BadInput(f"{path} holds neither MSRVTT_data.json nor *videodatainfo.json of the MSR-VTT layout")
    videos = {name: video for table in tables for name, video in _annotated(table).items()}
    if protocol == "1k-A":
        videos = _of_1k_a(path, videos)
    clips = {file.name: file for pattern in reversed(CLIPS) for file in sorted(path.glob(pattern))}
    files = {name: clips.get(f"{name}.mp4", path / f"{name}.mp4") for name in videos}
    return iter(
        [
            make_sample(name, files[name], captions, split=split, origin=origin, media="video")
            for name, (split, captions, origin) in videos.items()
        ]
    )


def _annotated(table: Path) -> dict[str, _Video]:
    """The videos of one JSON file in its own split, each with all of its sentences."""
    with laid_out_as("MSR-VTT", table):
        content = read_json(table)
        captions = defaultdict(list)
        for sentence in content["sentences"]:
            captions[sentence["video_id"]].append(sentence["caption"])
        splits = {video["video_id"]: split_named(video["split"], f"{table}") for video in content["videos"]}
    return {name: _Video(split, tuple(captions[name]), f"{table.name}: {name}") for name, split in splits.items()}


def _of_1k_a(path: Path, videos: dict[str, _Video]) -> dict[str, _Video]:
    """The training videos with all of their sentences, then the test videos with their one."""
    test = _tested(path)
    train = _listed(path / TRAIN_9K) if (path / TRAIN_9K).exists() else [name for name in videos if name not in test]
    if shared := [name for name in train if name in test]:
        raise BadInput(f"{path}: {shared[0]} is both in {TRAIN_9K} and in {TEST_1K}, {len(shared)} videos in all")
    unknown = _Video("train", (), TRAIN_9K)
    return {name: videos.get(name, unknown)._replace(split="train") for name in train} | test


def _listed(table: Path) -> list[str]:
    return [row["video_id"] for row in read_csv(table, "video_id")]


def _tested(path: Path) -> dict[str, _Video]:
    if not (path / TEST_1K).exists():
        raise BadInput(f"{path} holds no {TEST_1K}, the test videos of protocol 1k-A: put it there, or take `full`")
    test: dict[str, _Video] = {}
    for row in read_csv(path / TEST_1K, "video_id", "sentence"):
        name = row["video_id"]
        if name in test:
            raise BadInput(f"{path / TEST_1K} lists {name} twice: protocol 1k-A has one sentence a video")
        test[name] = _Video("test", (row["sentence"],), f"{TEST_1K}: {name}")
    return test
