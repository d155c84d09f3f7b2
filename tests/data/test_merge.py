"""Several data sets in one folder: their files, captions and splits as `folder` then reads them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cots.cli.data import merge
from cots.data.samples import Sample
from cots.data.sources.folder import read_folder
from cots.data.sources.holdout import HoldoutConfig
from cots.errors import BadInput
from tests.conftest import Cots

Encoded = Callable[..., bytes]


@pytest.fixture
def pictures(tmp_path: Path, picture: Encoded) -> Path:
    """A folder of two pictures of one name, the second in a folder of its own, and a row whose file is missing."""
    root = tmp_path / "pictures"
    (root / "more").mkdir(parents=True)
    rows = ['a.jpg,"a ""big"" dog, asleep",train', "more/a.jpg,other,val", "a.jpg,again,train", "gone.jpg,lost,test"]
    (root / "t.csv").write_text("\n".join(["image,caption,split", *rows]) + "\nlast.jpg,caf", encoding="utf8")
    with (root / "t.csv").open("ab") as file:
        file.write(b"\xe9,train\n")
    (root / "a.jpg").write_bytes(picture(seed=1))
    (root / "more/a.jpg").write_bytes(picture(seed=2))
    return root


@pytest.fixture
def clips(tmp_path: Path, clip: Encoded) -> Path:
    """Two clips in MSR-VTT's layout."""
    root = tmp_path / "clips"
    (root / "videos").mkdir(parents=True)
    videos = [{"video_id": "video0", "split": "train"}, {"video_id": "video1", "split": "validate"}]
    sentences = [{"video_id": f"video{n}", "caption": f"told {n}"} for n in (0, 1, 1)]
    (root / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    for n in (0, 1):
        (root / f"videos/video{n}.mp4").write_bytes(clip(2 + n))
    return root


def read(path: Path) -> list[Sample]:
    return list(read_folder(path, seed=0, holdout=HoldoutConfig(val=0, test=0)))


def test_the_folder_holds_what_its_sources_held(tmp_path: Path, pictures: Path, clips: Path) -> None:
    out = tmp_path / "new/both"
    merge(out, [f"folder:{pictures}", f"msrvtt:{clips}"])
    assert [(one.id, one.split, one.media, one.captions) for one in read(out)] == [
        ("pictures/a.jpg", "train", "image", ('a "big" dog, asleep', "again")),
        ("pictures/more/a.jpg", "val", "image", ("other",)),
        ("pictures/gone.jpg", "test", "image", ("lost",)),
        ("clips/videos/video0.mp4", "train", "video", ("told 0",)),
        ("clips/videos/video1.mp4", "val", "video", ("told 1", "told 1")),
        ("pictures/last.jpg", "train", "image", ("caf\udce9",)),
    ]
    assert (out / "pictures/more/a.jpg").read_bytes() == (pictures / "more/a.jpg").read_bytes()
    assert (out / "pictures/a.jpg").samefile(pictures / "a.jpg")
    assert not (out / "pictures/gone.jpg").exists()


def test_a_failure_leaves_nothing_and_a_second_try_works(tmp_path: Path, pictures: Path, clips: Path) -> None:
    out = tmp_path / "both"
    with pytest.raises(BadInput, match="must hold one caption table"):
        merge(out, [f"msrvtt:{clips}", f"folder:{tmp_path}"])
    assert not out.exists()
    table = clips / "t.csv"
    table.write_text("image,caption\n../pictures/a.jpg,outside\n")
    with pytest.raises(BadInput, match=r"t\.csv, line 2: \.\./pictures/a\.jpg is no file below"):
        merge(out, [f"folder:{pictures}", f"folder:{clips}"])
    assert not out.exists()
    table.unlink()
    merge(out, [f"folder:{pictures}", f"msrvtt:{clips}"])
    with pytest.raises(BadInput, match="both is in use: name a new folder"):
        merge(out, [f"folder:{pictures}"])
    assert len(read(out)) == 6


def test_a_name_that_winds_leads_nowhere_else(tmp_path: Path, picture: Encoded) -> None:
    root = tmp_path / "a/pictures"
    root.mkdir(parents=True)
    (root / "t.csv").write_text("image,caption\n../../a/pictures/p.jpg,round\n")
    (root / "p.jpg").write_bytes(picture())
    (tmp_path / "new/out").mkdir(parents=True)  # an empty folder is as good as none
    merge(tmp_path / "new/out", [f"folder:{root}"])
    assert [one.id for one in read(tmp_path / "new/out")] == ["pictures/p.jpg"]
    assert sorted(file.name for file in (tmp_path / "new").rglob("*")) == ["captions.csv", "out", "p.jpg", "pictures"]


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a\0.jpg", "caption": "x"},
        {"image": "a.jpg", "caption": "\ud800"},
    ],
)
def test_what_is_no_text_is_told_in_one_line(tmp_path: Path, row: dict[str, str]) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadInput, match=r"t\.jsonl, line 1: .* cannot be taken over: ") as raised:
        merge(tmp_path / "out", [f"folder:{root}"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["pictures", "folder:", "scenes:pictures"])
def test_a_source_that_is_not_named_well_is_told(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadInput, match="is not KIND:PATH, where KIND is one of coco, folder, karpathy, msrvtt"):
        merge(tmp_path / "out", [source])


def test_two_data_sets_of_one_name_are_told_apart_first(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(BadInput, match="need different names: pictures, pictures"):
        merge(tmp_path / "out", [f"folder:{pictures}", f"folder:{pictures}"])


@pytest.mark.parametrize("verb", ["merge", "gather"])
def test_the_verb_goes_by_its_name_and_by_that_of_version_0_1(
    cots: Cots, tmp_path: Path, pictures: Path, verb: str
) -> None:
    code, out, _ = cots("data", verb, tmp_path / "out", f"folder:{pictures}")
    assert (code, out.splitlines()[0].split()) == (0, ["data", "set", "samples"])
    assert (tmp_path / "out").is_dir()
