import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cots.data.samples import Fault, Sample
from cots.data.sources.coco import CocoSourceConfig
from cots.data.sources.folder import FolderSourceConfig
from cots.data.sources.holdout import HoldoutConfig, split_by_hash
from cots.data.sources.karpathy import KarpathySourceConfig
from cots.data.sources.msrvtt import MsrvttSourceConfig
from cots.data.sources.webdataset import WebdatasetSourceConfig
from cots.errors import BadInput

HOLDOUT = HoldoutConfig(val=0.2, test=0.3)


def karpathy(path: Path) -> Iterator[Sample]:
    return KarpathySourceConfig(path=path).read()


def coco(path: Path) -> Iterator[Sample]:
    return CocoSourceConfig(path=path).read()


def folder(path: Path) -> Iterator[Sample]:
    return FolderSourceConfig(path=path, holdout=HOLDOUT).read()


def webdataset(path: Path) -> Iterator[Sample]:
    return WebdatasetSourceConfig(path=path, holdout=HOLDOUT).read()


def msrvtt(path: Path) -> Iterator[Sample]:
    return MsrvttSourceConfig(path=path).read()


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"-")


def karpathy_entry(**changed: object) -> dict[str, Any]:
    return {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "one"}, {"raw": "two"}]} | changed


# Karpathy's layout


def test_karpathy_entries_become_samples_with_all_their_sentences(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset_flickr8k.json", {"images": [karpathy_entry()]})
    touch(tmp_path / "images/a.jpg")
    (sample,) = karpathy(tmp_path)
    assert (sample.id, sample.split, sample.media) == ("a.jpg", "train", "image")
    assert (sample.captions, sample.is_mismatched) == (("one", "two"), (False, False))
    assert sample.content == tmp_path / "images/a.jpg"


def test_cocos_filepath_is_part_of_the_path_and_restval_is_train(tmp_path: Path) -> None:
    entry = karpathy_entry(filepath="val2014", split="restval")
    write_json(tmp_path / "dataset_coco.json", {"images": [entry]})
    touch(tmp_path / "val2014/a.jpg")
    (sample,) = karpathy(tmp_path)
    assert (sample.id, sample.split, sample.content) == ("val2014/a.jpg", "train", tmp_path / "val2014/a.jpg")


def test_cocos_four_splits_in_two_folders_become_three(tmp_path: Path) -> None:
    splits = {"train": "train2014", "restval": "val2014", "val": "val2014", "test": "val2014"}
    entries = [
        karpathy_entry(filename=f"{split}.jpg", filepath=folder, split=split) for split, folder in splits.items()
    ]
    write_json(tmp_path / "dataset_coco.json", {"images": entries, "dataset": "coco"})
    for split, folder in splits.items():
        touch(tmp_path / "images" / folder / f"{split}.jpg")
    samples = list(karpathy(tmp_path))
    assert [sample.split for sample in samples] == ["train", "train", "val", "test"]
    assert all(isinstance(sample.content, Path) and sample.content.is_file() for sample in samples)


def test_flickr30k_keeps_its_order_and_all_five_sentences(tmp_path: Path) -> None:
    sentences = [{"raw": f"caption {number}", "tokens": ["caption"], "sentid": number} for number in range(5)]
    entries = [
        karpathy_entry(filename=name, split="test", imgid=7, sentids=[0], sentences=sentences)
        for name in ("2.jpg", "10.jpg", "1.jpg")
    ]
    write_json(tmp_path / "dataset_flickr30k.json", {"images": entries, "dataset": "flickr30k"})
    touch(tmp_path / "flickr30k-images/1.jpg")
    samples = list(karpathy(tmp_path))
    assert [sample.id for sample in samples] == ["2.jpg", "10.jpg", "1.jpg"]
    assert [len(sample.captions) for sample in samples] == [5, 5, 5]
    assert samples[2].content == tmp_path / "flickr30k-images/1.jpg"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON: line 1"),
        ("[]", "not in the Karpathy layout"),
        ('{"images": [{"filename": "a.jpg"}]}', "an entry has no 'sentences'"),
        ('{"images": [{"filename": "a.jpg", "split": "dog", "sentences": []}]}', "unknown split 'dog'"),
    ],
)
def test_json_of_another_layout_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dataset_x.json").write_text(content)
    with pytest.raises(BadInput, match=message) as raised:
        list(karpathy(tmp_path))
    assert "\n" not in str(raised.value)


BRACKETS = "[" * 100_000
DIGITS = "9" * 5000
STRAYS = [5, 1.5, True, {"en": "a cat"}, [["a cat"]]]  # values that are no captions


@pytest.mark.parametrize("content", [BRACKETS, f'{{"images": {DIGITS}}}'])
def test_json_that_python_cannot_hold_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_x.json").write_text(content)
    with pytest.raises(BadInput, match=r"dataset_x\.json is not usable as JSON: ") as raised:
        list(karpathy(tmp_path))
    assert "\n" not in str(raised.value)


def test_an_entry_of_another_layout_is_a_sample_with_a_fault_and_the_others_stay(tmp_path: Path) -> None:
    strays: list[object] = [None, "a.jpg", {"filename": "b.jpg", "split": "train"}, karpathy_entry(sentences=[{}])]
    write_json(tmp_path / "dataset_x.json", {"images": [karpathy_entry(), *strays, karpathy_entry(filename="z.jpg")]})
    first, *faulty, last = karpathy(tmp_path)
    assert (first.id, first.fault, last.id, last.fault) == ("a.jpg", None, "z.jpg", None)
    assert [sample.id for sample in faulty] == [f"dataset_x.json: entry {number}" for number in range(1, 5)]
    assert [sample.fault and sample.fault.reason for sample in faulty] == ["not in the layout"] * 4
    assert faulty[2].fault == Fault("not in the layout", "an entry has no 'sentences'")


def test_captions_that_are_no_text_are_the_fault_of_their_sample_alone(tmp_path: Path) -> None:
    entries = [
        karpathy_entry(filename=f"{n}.jpg", sentences=[{"raw": "x"}, {"raw": raw}]) for n, raw in enumerate(STRAYS)
    ]
    write_json(tmp_path / "dataset_x.json", {"images": [*entries, karpathy_entry(sentences=[{"raw": None}])]})
    *faulty, blank = karpathy(tmp_path)
    assert [sample.fault and sample.fault.reason for sample in faulty] == ["caption not text"] * len(STRAYS)
    assert faulty[0].fault == Fault("caption not text", "int instead of a text")
    assert (blank.captions, blank.fault) == (("",), None)


@pytest.mark.parametrize("name", ["x" * 300, "a\0.jpg", "\ud800.jpg", 5, None, ""])
def test_a_name_that_no_file_has_is_a_sample_all_the_same(tmp_path: Path, name: object) -> None:
    write_json(tmp_path / "dataset_x.json", {"images": [karpathy_entry(filename=name), karpathy_entry()]})
    (tmp_path / "images").mkdir()
    assert [sample.id for sample in karpathy(tmp_path)] == [str(name or ""), "a.jpg"]


def test_two_karpathy_files_are_refused(tmp_path: Path) -> None:
    for name in ("dataset_a.json", "dataset_b.json"):
        write_json(tmp_path / name, {"images": []})
    with pytest.raises(BadInput, match=r"found dataset_a.json, dataset_b.json"):
        list(karpathy(tmp_path))


# COCO's own layout


def write_coco(root: Path, part: str, number: int) -> None:
    images = [{"id": number, "file_name": f"COCO_{part}_{number}.jpg"}]
    annotations = [{"image_id": number, "caption": f"{part} {i}"} for i in range(2)]
    write_json(root / f"annotations/captions_{part}.json", {"images": images, "annotations": annotations})
    touch(root / part / f"COCO_{part}_{number}.jpg")


def test_coco_annotations_of_both_splits_become_samples(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2014", 1)
    write_coco(tmp_path, "val2014", 2)
    train, val = coco(tmp_path)
    assert (train.split, val.split) == ("train", "val")
    assert train.captions == ("train2014 0", "train2014 1")
    assert val.content == tmp_path / "val2014/COCO_val2014_2.jpg"


def test_coco_images_may_be_one_folder_deeper(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2017", 1)
    (tmp_path / "images").mkdir()
    (tmp_path / "train2017").rename(tmp_path / "images/train2017")
    (sample,) = coco(tmp_path)
    assert sample.content == tmp_path / "images/train2017/COCO_train2017_1.jpg"


def test_coco_of_two_years_is_refused_as_images_would_occur_twice(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2014", 1)
    write_coco(tmp_path, "train2017", 1)
    with pytest.raises(BadInput, match="found those of 2014 and 2017"):
        list(coco(tmp_path))


def test_coco_files_without_a_year_name_folders_without_one(tmp_path: Path) -> None:
    write_coco(tmp_path, "train", 1)
    write_coco(tmp_path, "val", 2)
    assert [(sample.id, sample.split) for sample in coco(tmp_path)] == [
        ("train/COCO_train_1.jpg", "train"),
        ("val/COCO_val_2.jpg", "val"),
    ]
    write_coco(tmp_path, "train2017", 1)
    with pytest.raises(BadInput, match="found those of no year and 2017"):
        list(coco(tmp_path))


def test_every_listed_coco_image_is_a_sample_also_one_listed_twice_or_without_captions(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 1, 2, 3)] + [{"id": 4}]
    annotations: list[object] = [{"image_id": 1, "caption": "one"}, {"image_id": 3}]
    write_json(tmp_path / "annotations/captions_val2017.json", {"images": images, "annotations": annotations})
    first, again, bare, *faulty = coco(tmp_path)
    assert (first.id, again.id) == ("val2017/1.jpg", "val2017/1.jpg")
    assert (bare.captions, bare.fault) == ((), None)
    details = [sample.fault and sample.fault.detail for sample in faulty]
    assert details == ["an entry has no 'caption'", "an entry has no 'file_name'"]


# A folder with a table


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.csv", 'image,caption,split\na.jpg,"one, or ""more""",train\nb.jpg,three,test\na.jpg,two,train\n'),
        ("t.tsv", 'image\tcaption\tsplit\na.jpg\tone, or "more"\ttrain\nb.jpg\tthree\ttest\na.jpg\ttwo\ttrain\n'),
        (
            "t.CSV",
            '\ufeffSplit,Caption,Image\r\ntrain,"one, or ""more""",a.jpg\r\ntest,three,b.jpg\r\ntrain,two,a.jpg\r\n',
        ),
        (
            "t.jsonl",
            '{"image": "a.jpg", "caption": "one, or \\"more\\"", "split": "train"}\n\n'
            '{"image": "b.jpg", "caption": "three", "split": "test", "width": 3}\n'
            '{"image": "a.jpg", "caption": "two", "split": "train"}\n',
        ),
    ],
)
def test_rows_of_one_image_become_one_sample_in_every_kind_of_table(tmp_path: Path, name: str, table: str) -> None:
    (tmp_path / name).write_text(table, newline="")
    first, second = folder(tmp_path)
    assert (first.id, first.split, first.captions) == ("a.jpg", "train", ('one, or "more"', "two"))
    assert (second.id, second.split, second.captions) == ("b.jpg", "test", ("three",))
    assert first.content == tmp_path / "a.jpg"
    assert first.origin == f"{name}, line {1 if name == 't.jsonl' else 2}"


def test_a_file_with_the_ending_of_a_video_is_a_video(tmp_path: Path) -> None:
    names = ["a.jpg", "b.mp4", "c.MOV", "mp4", "d.mp4.png"]
    (tmp_path / "t.csv").write_text("image,caption\n" + "".join(f"{name},text\n" for name in names))
    assert [sample.media for sample in folder(tmp_path)] == ["image", "video", "video", "image", "image"]


def test_a_quoted_tsv_loses_its_quotes_and_an_unmatched_quote_swallows_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('image\tcaption\n\na.jpg\t"a ""big"" dog"\nb.jpg\t"odd\nc.jpg\tplain\n')
    assert [sample.captions for sample in folder(tmp_path)] == [('a "big" dog',), ('"odd',), ("plain",)]


def test_without_a_split_column_the_split_follows_from_id_and_seed(tmp_path: Path) -> None:
    rows = "".join(f"{i}.jpg,text\n" for i in range(2000))
    (tmp_path / "t.csv").write_text("image,caption\n" + rows)
    splits = [sample.split for sample in folder(tmp_path)]
    assert splits.count("val") == pytest.approx(400, abs=60)
    assert splits.count("test") == pytest.approx(600, abs=60)
    again = [sample.split for sample in FolderSourceConfig(path=tmp_path, seed=1, holdout=HOLDOUT).read()]
    assert splits != again
    assert splits[7] == split_by_hash("7.jpg", seed=0, holdout=HOLDOUT)


def test_a_row_that_is_not_utf8_becomes_a_sample_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,caption\na.jpg,fine\na.jpg,caf\xe9\nb.jpg,caf\xc3\xa9\n")
    samples = list(folder(tmp_path))
    assert [sample.captions for sample in samples] == [("fine",), ("café",), ("caf\udce9",)]


def test_a_row_with_a_lone_surrogate_becomes_a_sample_of_its_own(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "caption": "fine"}, {"image": "a\ud800.jpg", "caption": "half a name"}]
    rows.append({"image": "a.jpg", "caption": "half \ud83d of one"})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples = list(folder(tmp_path))
    assert [sample.captions for sample in samples] == [("fine",), ("half a name",), ("half \ud83d of one",)]


def test_a_list_in_jsonl_is_several_captions(tmp_path: Path) -> None:
    rows = [("a.jpg", ["a red dog", "a dog on grass"]), ("b.jpg", None), ("a.jpg", "a third"), ("c.jpg", [])]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"image": name, "caption": text}) for name, text in rows))
    captions = {sample.id: sample.captions for sample in folder(tmp_path)}
    assert captions == {"a.jpg": ("a red dog", "a dog on grass", "a third"), "b.jpg": ("",), "c.jpg": ()}


def test_a_jsonl_row_whose_caption_is_no_text_becomes_a_sample_of_its_own(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "caption": caption} for caption in ["fine", *STRAYS, ["half", 5]]]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fine, *faulty = folder(tmp_path)
    assert (fine.captions, fine.fault) == (("fine",), None)
    assert [sample.fault and sample.fault.reason for sample in faulty] == ["caption not text"] * 6
    assert [sample.origin for sample in faulty] == [f"t.jsonl, line {line}" for line in range(2, 8)]


def test_a_jsonl_row_may_lack_what_others_have(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg"}, {"image": "b.jpg", "caption": "a dog", "album": 3}, {"caption": "a cat"}, {}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [(sample.id, sample.captions, sample.metadata, sample.fault) for sample in folder(tmp_path)] == [
        ("a.jpg", (), {}, None),
        ("b.jpg", ("a dog",), {"album": 3}, None),
        ("t.jsonl, line 3", ("a cat",), {}, ("not in the layout", "the row names no image")),
        ("t.jsonl, line 4", (), {}, ("not in the layout", "the row names no image")),
    ]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_caption_of_any_length_leaves_the_other_rows_as_they_are(tmp_path: Path, suffix: str) -> None:
    rows = [("image", "caption"), ("a.jpg", "x" * 200_000), ("b.jpg", "y")]
    (tmp_path / f"t.{suffix}").write_text("\n".join(("," if suffix == "csv" else "\t").join(row) for row in rows))
    assert [(sample.id, len(sample.captions[0])) for sample in folder(tmp_path)] == [("a.jpg", 200_000), ("b.jpg", 1)]


def test_a_cell_that_no_quotation_mark_closes_is_not_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('image,caption\na.jpg,"x\n' + "b.jpg,y\n" * (1 << 21))
    with pytest.raises(BadInput, match=r"lines 2 to \d+: field larger than field limit"):
        list(folder(tmp_path))


def test_hidden_files_and_folders_beside_the_table_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "._t.csv").write_bytes(b"\0\5\26\7")
    (tmp_path / "old.csv").mkdir()
    (tmp_path / "t.csv").write_text("image,caption\na.jpg,x\n")
    assert [sample.id for sample in folder(tmp_path)] == ["a.jpg"]


def test_blank_cells_behind_the_last_column_are_no_captions_cut_short(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption\na.jpg,a dog,,\nb.jpg\n")
    assert [(sample.id, sample.captions) for sample in folder(tmp_path)] == [("a.jpg", ("a dog",)), ("b.jpg", ("",))]


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        (
            "t.csv",
            "image,caption\na.jpg,x\nb.jpg,a dog, asleep\n",
            "line 3: 3 cells, but the header has 2: put a caption",
        ),
        ("t.tsv", "image\tcaption\na.jpg\ta\tdog\n", "line 2: 3 cells, but the header has 2"),
        ("t.csv", "image,caption,caption\na.jpg,x,y\n", "several columns are called caption"),
        ("t.csv", 'image,caption\na.jpg,x\nb.jpg,"open\nc.jpg,y\n', "lines 3 to 4: unexpected end of data; save it"),
        ("t.jsonl", BRACKETS, "line 1: not JSON: brackets are nested too deeply"),
        ("t.jsonl", f'{{"image": "a.jpg", "caption": {DIGITS}}}', "line 1: not JSON: Exceeds the limit"),
        ("t.csv", "", "the columns found are none: the table is empty"),
        ("t.csv", "image,caption\n", "has no rows below its header"),
        ("t.csv", "a.jpg,a dog\nb.jpg,a cat\n", "no column image and caption; the columns found are 'a.jpg', 'a dog'"),
        ("t.tsv", "file\tcaption\na.jpg\ta dog\n", "no column image; the columns found are 'file', 'caption'"),
        ("t.csv", "image,caption,split\na.jpg,a dog,holdout\n", "line 2: unknown split 'holdout'"),
        (
            "t.csv",
            "image,caption,split\na.jpg,x,train\na.jpg,y,test\n",
            "a.jpg is in split train in t.csv, line 2, in test in t.csv, line 3",
        ),
        ("t.csv", 'image,caption\na.jpg,"x\n', "line 2: unexpected end of data"),
        ("t.jsonl", "", "has no rows"),
        ("t.jsonl", '{"image": "a.jpg"}\n{"image": "b.jpg"}\n', "line 1: no column caption"),
        ("t.jsonl", '{"image": "a.jpg", "caption": "x"}\nnonsense\n', "line 2: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("t.txt", "", "holds no caption table .*, no image and no video"),
    ],
)
def test_an_unusable_table_is_refused_in_one_line(tmp_path: Path, name: str, table: str, message: str) -> None:
    (tmp_path / name).write_text(table)
    with pytest.raises(BadInput, match=message) as raised:
        list(folder(tmp_path))
    assert "\n" not in str(raised.value)


# All layouts


@pytest.mark.parametrize("read", [karpathy, coco, folder, webdataset, msrvtt])
@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_or_empty_folder_is_refused(
    tmp_path: Path, read: Callable[[Path], Iterator[Sample]], exists: bool
) -> None:
    path = tmp_path / "data"
    if exists:
        path.mkdir()
    with pytest.raises(BadInput, match="hold" if exists else "does not exist: set source.path"):
        list(read(path))


@pytest.mark.data
def test_real_data_sets_are_read_completely(data_packs: Path) -> None:
    photos = list(karpathy(data_packs / "flickr8k"))
    assert (len(photos), sum(len(sample.captions) for sample in photos)) == (6999, 34995)
    emoji = list(folder(data_packs / "emoji"))
    assert len(emoji) == 2952
    assert all(isinstance(sample.content, Path) and sample.content.is_file() for sample in photos + emoji)
    videos = list(msrvtt(data_packs / "msrvtt"))
    assert [sum(sample.split == split for sample in videos) for split in ("train", "val", "test")] == [3151, 244, 0]
