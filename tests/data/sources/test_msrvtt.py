"""MSR-VTT in its published layouts and protocols."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from cots.data.samples import Fault, Sample
from cots.data.sources.msrvtt import MsrvttSourceConfig
from cots.errors import BadInput

TEST_HEAD = "key,vid_key,video_id,sentence"
SENTENCES = 3  # per video


def write_table(path: Path, numbers: range, split: str) -> None:
    """Add videos to a JSON file of the release; as there, the sentences of a video are not in one place."""
    videos = [{"video_id": f"video{n}", "id": n, "category": 1, "split": split} for n in numbers]
    sentences = [
        {"sen_id": SENTENCES * n + turn, "video_id": f"video{n}", "caption": f"video {n}, told {turn}"}
        for turn in range(SENTENCES)
        for n in numbers
    ]
    known = json.loads(path.read_text()) if path.exists() else {"videos": [], "sentences": []}
    path.write_text(json.dumps({"videos": known["videos"] + videos, "sentences": known["sentences"] + sentences}))


def touch_videos(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        (folder / f"video{n}.mp4").write_bytes(b"-")


def write_test_list(root: Path, numbers: range) -> None:
    rows = [f'ret{row},msr{n},video{n},"a man, in {n}, sings"' for row, n in enumerate(numbers)]
    (root / "MSRVTT_JSFUSION_test.csv").write_text("\n".join([TEST_HEAD, *rows]) + "\n")


def write_train_list(root: Path, numbers: range) -> None:
    (root / "MSRVTT_train.9k.csv").write_text("video_id\n" + "".join(f"video{n}\n" for n in numbers))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The original release: 6 train and 2 validate videos in one file and folder, 4 test videos in others."""
    write_table(tmp_path / "train_val_videodatainfo.json", range(6), "train")
    write_table(tmp_path / "train_val_videodatainfo.json", range(6, 8), "validate")
    write_table(tmp_path / "test_videodatainfo.json", range(8, 12), "test")
    touch_videos(tmp_path / "TrainValVideo", range(8))
    touch_videos(tmp_path / "TestVideo", range(8, 12))
    return tmp_path


@pytest.fixture
def combined(tmp_path: Path) -> Path:
    """The same videos as retrieval projects publish them: one JSON file, and one folder two levels down."""
    for numbers, split in ((range(6), "train"), (range(6, 8), "validate"), (range(8, 12), "test")):
        write_table(tmp_path / "MSRVTT_data.json", numbers, split)
    touch_videos(tmp_path / "videos" / "all", range(12))
    return tmp_path


def by_split(samples: list[Sample]) -> dict[str, list[str]]:
    return {split: [s.id for s in samples if s.split == split] for split in ("train", "val", "test")}


def names(*numbers: int) -> list[str]:
    return [f"video{n}" for n in numbers]


@pytest.mark.parametrize("layout", ["release", "combined"])
def test_full_is_the_releases_own_split_with_all_sentences(layout: str, request: pytest.FixtureRequest) -> None:
    samples = list(MsrvttSourceConfig(path=request.getfixturevalue(layout), protocol="full").read())
    assert {split: sorted(ids) for split, ids in by_split(samples).items()} == {
        "train": names(0, 1, 2, 3, 4, 5),
        "val": names(6, 7),
        "test": sorted(names(8, 9, 10, 11)),
    }
    assert all(s.captions == tuple(f"video {s.id[5:]}, told {turn}" for turn in range(SENTENCES)) for s in samples)
    assert all(s.media == "video" for s in samples)


def test_each_video_is_found_in_its_folder(release: Path) -> None:
    files = {s.id: s.content for s in MsrvttSourceConfig(path=release, protocol="full").read()}
    assert files["video0"] == release / "TrainValVideo" / "video0.mp4"
    assert files["video11"] == release / "TestVideo" / "video11.mp4"
    assert all(isinstance(file, Path) and file.is_file() for file in files.values())


def test_one_file_may_name_videos_of_several_folders_with_some_missing(combined: Path) -> None:
    shutil.rmtree(combined / "videos")
    touch_videos(combined / "TrainValVideo", range(3, 8))
    touch_videos(combined / "TestVideo", range(8, 11))
    samples = MsrvttSourceConfig(path=combined, protocol="full").read()
    existing = [s.id for s in samples if isinstance(s.content, Path) and s.content.exists()]
    assert existing == names(*range(3, 11))


@pytest.mark.parametrize("layout", ["release", "combined"])
def test_1k_a_tests_the_listed_videos_with_one_sentence_and_trains_on_all_others(
    layout: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(layout)
    write_test_list(root, range(10, 12))
    samples = list(MsrvttSourceConfig(path=root, protocol="1k-A").read())
    ids = by_split(samples)
    assert sorted(ids["train"]) == sorted(names(*range(10)))
    assert (ids["val"], ids["test"]) == ([], names(10, 11))
    captions = {s.id: s.captions for s in samples}
    assert captions["video10"] == ("a man, in 10, sings",)
    assert captions["video9"] == tuple(f"video 9, told {turn}" for turn in range(SENTENCES))


def test_1k_a_trains_on_the_listed_videos_if_there_is_a_list(combined: Path) -> None:
    write_test_list(combined, range(10, 12))
    write_train_list(combined, range(2, 9))
    assert by_split(list(MsrvttSourceConfig(path=combined, protocol="1k-A").read()))["train"] == names(*range(2, 9))


def test_a_listed_video_that_the_release_does_not_name_has_no_caption_to_train_on(combined: Path) -> None:
    write_test_list(combined, range(10, 12))
    write_train_list(combined, range(90, 91))
    [unknown] = [s for s in MsrvttSourceConfig(path=combined, protocol="1k-A").read() if s.split == "train"]
    assert (unknown.id, unknown.captions, unknown.origin) == ("video90", (), "MSRVTT_train.9k.csv: video90")


def test_what_macos_puts_beside_the_files_is_not_read(release: Path) -> None:
    (release / "._test_videodatainfo.json").write_bytes(b"\0\5\26\7")
    (release / "TestVideo/._video8.mp4").write_bytes(b"\0\5\26\7")
    files = {s.id: s.content for s in MsrvttSourceConfig(path=release, protocol="full").read()}
    assert (len(files), files["video8"]) == (12, release / "TestVideo/video8.mp4")


def test_every_listed_video_is_a_sample_also_one_listed_twice_or_without_an_id(combined: Path) -> None:
    content = json.loads((combined / "MSRVTT_data.json").read_text())
    content["videos"] += [content["videos"][0], {"split": "train"}]
    (combined / "MSRVTT_data.json").write_text(json.dumps(content))
    *_, again, faulty = MsrvttSourceConfig(path=combined, protocol="full").read()
    assert (again.id, again.fault) == ("video0", None)
    assert faulty.fault == Fault("not in the layout", "an entry has no 'video_id'")


def without_lists(root: Path) -> None:
    assert not list(root.glob("*.csv"))


def with_a_leak(root: Path) -> None:
    write_test_list(root, range(8, 12))
    write_train_list(root, range(10))


def with_a_video_twice(root: Path) -> None:
    write_test_list(root, range(8, 10))
    with (root / "MSRVTT_JSFUSION_test.csv").open("a") as file:
        file.write("ret2,msr8,video8,again\n")


def with_other_columns(root: Path) -> None:
    (root / "MSRVTT_JSFUSION_test.csv").write_text("key,video,caption\nret0,video8,a man\n")


def with_an_empty_list(root: Path) -> None:
    (root / "MSRVTT_JSFUSION_test.csv").write_text("")


def with_a_short_row(root: Path) -> None:
    (root / "MSRVTT_JSFUSION_test.csv").write_text(f"{TEST_HEAD}\nret0,msr8,video8,a man\nret1,msr9,video9\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_lists, "holds no MSRVTT_JSFUSION_test.csv, the test videos of protocol 1k-A"),
        (with_a_leak, "video8 is both in MSRVTT_train.9k.csv and in MSRVTT_JSFUSION_test.csv, 2 videos in all"),
        (with_a_video_twice, "lists video8 twice"),
        (with_other_columns, "no column video_id and sentence; the columns found are key, video, caption"),
        (with_an_empty_list, "the columns found are none"),
        (with_a_short_row, "line 3: the row ends before its last column"),
    ],
)
def test_missing_or_wrong_lists_are_refused_in_one_line(combined: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(combined)
    with pytest.raises(BadInput, match=message) as raised:
        list(MsrvttSourceConfig(path=combined, protocol="1k-A").read())
    assert "\n" not in str(raised.value)


@pytest.mark.data
def test_the_real_data_set_is_split_by_lists_beside_it(data_packs: Path, tmp_path: Path) -> None:
    shutil.copy(data_packs / "msrvtt" / "MSRVTT_data.json", tmp_path)
    full = list(MsrvttSourceConfig(path=tmp_path, protocol="full").read())
    assert Counter(s.split for s in full) == {"train": 3151, "val": 244}
    assert {len(s.captions) for s in full if s.split == "val"} == {20}
    listed = [s.id for s in full if s.split == "val"][:100]
    rows = [f'ret{n},{name},{name},"sentence {n}"' for n, name in enumerate(listed)]
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("\n".join([TEST_HEAD, *rows]) + "\n")
    samples = list(MsrvttSourceConfig(path=tmp_path, protocol="1k-A").read())
    assert Counter(s.split for s in samples) == {"train": 3151 + 144, "test": 100}
    assert [s.captions for s in samples if s.split == "test"] == [(f"sentence {n}",) for n in range(100)]
