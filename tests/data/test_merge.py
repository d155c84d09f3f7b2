"""Merged data sets: their files, captions and splits as source `folder` reads them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cots.cli.data import merge
from cots.data.ingest.merge import merge as merge_samples
from cots.data.samples import Sample
from cots.data.sources.folder import FolderSourceConfig
from cots.data.sources.holdout import HoldoutConfig
from cots.errors import BadInput
from tests.conftest import Cots

Encoded = Callable[..., bytes]


@pytest.fixture
def images(tmp_path: Path, make_image: Encoded) -> Path:
    """A folder of two images with the same name, the second in a subfolder, and a row whose file is missing."""
    root = tmp_path / "images"
    (root / "more").mkdir(parents=True)
    rows = ['a.jpg,"a ""big"" dog, asleep",train', "more/a.jpg,other,val", "a.jpg,again,train", "gone.jpg,lost,test"]
    (root / "t.csv").write_text("\n".join(["image,caption,split", *rows]) + "\nlast.jpg,caf", encoding="utf8")
    with (root / "t.csv").open("ab") as file:
        file.write(b"\xe9,train\n")
    (root / "a.jpg").write_bytes(make_image(seed=1))
    (root / "more/a.jpg").write_bytes(make_image(seed=2))
    return root


@pytest.fixture
def movies(tmp_path: Path, make_video: Encoded) -> Path:
    """Two videos in MSR-VTT's layout."""
    root = tmp_path / "movies"
    (root / "videos").mkdir(parents=True)
    videos = [{"video_id": "video0", "split": "train"}, {"video_id": "video1", "split": "validate"}]
    sentences = [{"video_id": f"video{n}", "caption": f"told {n}"} for n in (0, 1, 1)]
    (root / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    for n in (0, 1):
        (root / f"videos/video{n}.mp4").write_bytes(make_video(2 + n))
    return root


def read(path: Path) -> list[Sample]:
    return list(FolderSourceConfig(path=path, holdout=HoldoutConfig(val=0, test=0)).read())


def test_the_merged_folder_has_all_samples_of_its_sources(tmp_path: Path, images: Path, movies: Path) -> None:
    out = tmp_path / "new/both"
    merge(out, [f"folder:{images}", f"msrvtt:{movies}"])
    assert [(sample.id, sample.split, sample.media, sample.captions) for sample in read(out)] == [
        ("images/a.jpg", "train", "image", ('a "big" dog, asleep', "again")),
        ("images/more/a.jpg", "val", "image", ("other",)),
        ("images/gone.jpg", "test", "image", ("lost",)),
        ("movies/videos/video0.mp4", "train", "video", ("told 0",)),
        ("movies/videos/video1.mp4", "val", "video", ("told 1", "told 1")),
        ("images/last.jpg", "train", "image", ("caf\udce9",)),
    ]
    assert (out / "images/more/a.jpg").read_bytes() == (images / "more/a.jpg").read_bytes()
    assert (out / "images/a.jpg").samefile(images / "a.jpg")
    assert not (out / "images/gone.jpg").exists()


def test_metadata_are_kept_as_they_are(tmp_path: Path, make_image: Encoded) -> None:
    metadata = {"album": 3, "tags": ["red", {"round": None}], "at": "2020-01-02", "Split": "by hand", "odd": "\udcff"}
    file = tmp_path / "a.jpg"
    file.write_bytes(make_image())
    sample = Sample(
        id="a.jpg",
        split="train",
        media="image",
        captions=("a dog", "asleep, on grass\n"),
        is_mismatched=(False, False),
        content=file,
        origin="t",
        metadata=metadata | {"caption": "another", "none": float("nan")},
    )
    assert merge_samples({"photos": (tmp_path, [sample])}, tmp_path / "out") == {"photos": 1}
    [merged] = read(tmp_path / "out")
    assert (merged.id, merged.split, merged.captions) == ("photos/a.jpg", "train", sample.captions)
    assert merged.metadata == metadata | {"odd": "\\udcff"}


def test_a_failed_merge_leaves_no_folder_and_can_be_repeated(tmp_path: Path, images: Path, movies: Path) -> None:
    out = tmp_path / "both"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no caption table"):
        merge(out, [f"msrvtt:{movies}", f"folder:{tmp_path / 'empty'}"])
    assert not out.exists()
    table = movies / "t.csv"
    table.write_text("image,caption\n../images/a.jpg,outside\n")
    with pytest.raises(BadInput, match=r"t\.csv, line 2: \.\./images/a\.jpg is not a file below"):
        merge(out, [f"folder:{images}", f"folder:{movies}"])
    assert not out.exists()
    table.unlink()
    merge(out, [f"folder:{images}", f"msrvtt:{movies}"])
    with pytest.raises(BadInput, match="both is in use: name a new folder"):
        merge(out, [f"folder:{images}"])
    assert len(read(out)) == 6


def test_a_path_with_detours_stays_inside_the_merged_folder(tmp_path: Path, make_image: Encoded) -> None:
    root = tmp_path / "a/images"
    root.mkdir(parents=True)
    (root / "t.csv").write_text("image,caption\n../../a/images/p.jpg,round\n")
    (root / "p.jpg").write_bytes(make_image())
    (tmp_path / "new/out").mkdir(parents=True)  # an empty folder is as good as none
    merge(tmp_path / "new/out", [f"folder:{root}"])
    assert [sample.id for sample in read(tmp_path / "new/out")] == ["images/p.jpg"]
    assert sorted(file.name for file in (tmp_path / "new").rglob("*")) == ["captions.jsonl", "images", "out", "p.jpg"]


def test_a_table_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (tmp_path / "secret").write_text("image,caption\na.jpg,a secret\n")
    (root / "t.csv").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match=r"t\.csv leads to .*secret, which is not below"):
        merge(tmp_path / "out", [f"folder:{root}"])


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a\0.jpg", "caption": "x"},
        {"image": "a.jpg", "caption": "\ud800"},
    ],
)
def test_a_name_or_caption_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, row: dict[str, str]) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (root / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadInput, match=r"t\.jsonl, line 1: .* cannot be merged: ") as raised:
        merge(tmp_path / "out", [f"folder:{root}"])
    assert "\n" not in str(raised.value)


def test_an_entry_of_another_layout_keeps_a_row_as_a_missing_file_does(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    good = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a dog"}]}
    (root / "dataset_x.json").write_text(json.dumps({"images": [good, {}]}))
    merge(tmp_path / "out", [f"karpathy:{root}"])
    rows = [(sample.id, sample.captions) for sample in read(tmp_path / "out")]
    assert rows == [("photos/a.jpg", ("a dog",)), ("photos/dataset_x.json: entry 1", ())]


@pytest.mark.parametrize("source", ["images", "folder:", "scenes:images"])
def test_a_source_that_is_not_kind_and_path_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadInput, match="is not KIND:PATH, where KIND is one of coco, folder, karpathy, msrvtt"):
        merge(tmp_path / "out", [source])


def test_two_data_sets_of_the_same_name_are_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(BadInput, match="need different names: images, images"):
        merge(tmp_path / "out", [f"folder:{images}", f"folder:{images}"])


@pytest.mark.parametrize("verb", ["merge", "gather"])
def test_the_command_has_its_present_and_its_old_name(cots: Cots, tmp_path: Path, images: Path, verb: str) -> None:
    code, out, _ = cots("data", verb, tmp_path / "out", f"folder:{images}")
    assert (code, out.splitlines()[0].split()) == (0, ["data", "set", "samples"])
    assert (tmp_path / "out").is_dir()
