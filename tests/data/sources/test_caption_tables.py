"""Every form in which people keep captions, as files: the source `folder` reads them all alike."""

import errno
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cots.data.samples import Sample
from cots.data.sources.folder import FolderSourceConfig
from cots.errors import BadInput

ROWS = [("a.jpg", "a dog", "train", 3), ("b.mp4", "a cat, asleep", "val", None), ("a.jpg", "one more dog", "train", 4)]


def frame(image: str = "image", caption: str = "caption") -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=[image, caption, "split", "album"])
    return table.astype({"album": "Int64"})


def read(path: Path, **keys: object) -> list[Sample]:
    return list(FolderSourceConfig.model_validate({"path": path, **keys}).read())


FORMS: dict[str, Callable[[Path], object]] = {
    "captions.csv": lambda file: frame().to_csv(file, index=False),
    "upper.CSV": lambda file: frame("Image", "CAPTION").to_csv(file, index=False),
    "semicolons.csv": lambda file: frame().to_csv(file, index=False, sep=";", encoding="utf-8-sig", quoting=1),
    "tabs.csv": lambda file: frame().to_csv(file, index=False, sep="\t"),
    "utf16.csv": lambda file: frame().to_csv(file, index=False, encoding="utf-16", lineterminator="\r\n"),
    "utf16.tsv": lambda file: frame().to_csv(file, index=False, sep="\t", encoding="utf-16"),
    "captions.tsv": lambda file: frame().to_csv(file, sep="\t", index=False),
    "captions.jsonl": lambda file: frame().to_json(file, orient="records", lines=True),
    "captions.parquet": lambda file: frame().to_parquet(file),
}


@pytest.mark.parametrize("name", FORMS)
def test_all_forms_of_a_table_give_the_same_samples(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name)
    samples = read(tmp_path)
    assert [(sample.id, sample.media, sample.split, sample.captions) for sample in samples] == [
        ("a.jpg", "image", "train", ("a dog", "one more dog")),
        ("b.mp4", "video", "val", ("a cat, asleep",)),
    ]
    assert [{key: str(value) for key, value in sample.metadata.items()} for sample in samples] == [{"album": "3"}, {}]
    assert [sample.fault for sample in samples] == [None, None]


def test_paths_may_be_written_as_on_windows(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.jpg", "b\\c.jpg"):
        (tmp_path / name).write_bytes(b"-")
    (tmp_path / "t.csv").write_text("image,caption\nsub\\a.jpg,a dog\n.\\sub\\a.jpg,a cat\nsub/a.jpg,one\nb\\c.jpg,x\n")
    samples = {sample.id: sample.captions for sample in read(tmp_path)}
    assert samples == {"sub/a.jpg": ("a dog", "one"), "./sub/a.jpg": ("a cat",), "b\\c.jpg": ("x",)}


def test_a_folder_that_cannot_be_listed_is_a_rejected_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"-")

    def scandir(path: str) -> Any:  # for root, whom the tests may run as, every folder can be listed
        if Path(path) == tmp_path / "b":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return listed(path)

    listed = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    unreadable, found = read(tmp_path)
    assert found.id == "a/1.jpg"
    assert (unreadable.id, unreadable.fault) == (
        "b",
        ("no such file", "the folder cannot be listed: Permission denied"),
    )


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_hugging_faces_metadata_are_read_by_the_names_of_their_columns(tmp_path: Path, name: str) -> None:
    table = frame("file_name", "text").drop(columns="split")
    if name.endswith("csv"):
        table.to_csv(tmp_path / name, index=False)
    else:
        table.to_json(tmp_path / name, orient="records", lines=True)
    captions = [sample.captions for sample in read(tmp_path, image_column="file_name", caption_column="text")]
    assert captions == [("a dog", "one more dog"), ("a cat, asleep",)]


def test_images_in_a_folder_beside_the_table_are_found(tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images/a.jpg").write_bytes(b"-")
    FORMS["captions.csv"](tmp_path / "captions.csv")
    samples = read(tmp_path, include_unlisted=True)
    assert [sample.content for sample in samples] == [tmp_path / "Images/a.jpg", tmp_path / "Images/b.mp4"]
    assert samples[0].id == "a.jpg"


def test_of_several_tables_one_is_named_and_its_ending_need_not_tell_its_format(tmp_path: Path) -> None:
    for name in ("captions.csv", "captions.tsv", "notes.txt"):
        FORMS["captions.tsv" if name.endswith("tsv") else "captions.csv"](tmp_path / name)
    with pytest.raises(BadInput, match=r"found captions\.csv, captions\.tsv: name one in source\.table"):
        read(tmp_path)
    assert [[sample.id for sample in read(tmp_path, table=name)] for name in ("captions.tsv", "notes.txt")] == [
        ["a.jpg", "b.mp4"]
    ] * 2
    with pytest.raises(BadInput, match=r"no caption table .*caption\.csv: set source\.table"):
        read(tmp_path, table="caption.csv")


def test_a_table_without_captions_gives_samples_with_metadata(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.jpg", "tags": ["red", "round"], "width": 4.5}))
    (sample,) = read(tmp_path, caption_column=None)
    assert (sample.captions, sample.fault) == ((), None)
    assert sample.metadata == {"tags": ["red", "round"], "width": 4.5}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"image": [{"bytes": b"-"}], "caption": ["x"]}, "row 1: column image holds the images themselves"),
        ({"image": [b"-"], "caption": ["x"]}, "row 1: column image holds the images themselves"),
        ({"file": ["a.jpg"], "caption": ["x"]}, "no column image; the columns found are 'file', 'caption'"),
    ],
)
def test_parquet_that_names_no_images_is_refused(tmp_path: Path, cells: dict[str, list[Any]], message: str) -> None:
    pq.write_table(pa.table(cells), tmp_path / "t.parquet")
    with pytest.raises(BadInput, match=message):
        read(tmp_path)


def test_damaged_parquet_is_refused_in_one_line(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"t\.parquet cannot be read as Parquet: ") as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


def test_parquet_that_python_cannot_hold_spoils_its_own_row_alone(tmp_path: Path) -> None:
    """Arrow checks neither that texts are UTF-8, nor that dates lie in Python's years."""
    texts = pa.array([b"a dog", b"\xff", None], pa.binary()).view(pa.string())
    late = pa.array([0, 1 << 62, None], pa.timestamp("us"))
    columns = {"image": ["a.jpg", "b.jpg", "c.jpg"], "late": late, "parts": pa.StructArray.from_arrays([texts], ["x"])}
    lists = pa.ListArray.from_arrays([0, 1, 2, 3], texts)
    for captions in (texts, texts.cast(pa.large_string()), texts.dictionary_encode(), lists):
        pq.write_table(pa.table(columns | {"caption": captions}), tmp_path / "t.parquet")
        samples = {sample.id: sample for sample in read(tmp_path)}
        assert [samples[name].captions for name in columns["image"]] == [("a dog",), ("\udcff",), ("",)]
        assert samples["a.jpg"].metadata == {"late": datetime(1970, 1, 1), "parts": {"x": "a dog"}}
        assert samples["b.jpg"].metadata == {"parts": {"x": "\udcff"}}
