"""Every sample of a source becomes a row of the manifest or of the rejects, whatever the source says of it.

Hypothesis draws sources that hold one good sample and others with names, captions and contents of any kind, and damages
whole files. The examples are the same in each run.
"""

import csv
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cots.config.stages.prepare import PrepareParams
from cots.data.samples import is_utf8
from cots.errors import CotsError
from cots.stages.prepare import stage
from tests.drawn import drawn

pytestmark = pytest.mark.slow

Encoded = Callable[..., bytes]
ROOT = Path(__file__).parents[3]
HOLDOUT = {"val": 0.0, "test": 0.0}
SOURCES: dict[str, dict[str, Any]] = {"folder": {"holdout": HOLDOUT}, "webdataset": {"holdout": HOLDOUT}}
GOOD = "good.jpg"  # the file of the good sample; good.mp4 is the video

ODD_NAMES = ["", ".", "gone.jpg", "../x.jpg", "/etc/passwd", "x" * 300, "a\0b", "caf\udce9.jpg", "a/b.mp4", " good.jpg"]
ODD_TEXTS = ["", "  ", "a, b", 'say "hi"', "\ufeffx", "\udcff", "a" * 600, "\0", "null", "a\u2028b", "🎈", "[PAD]"]
TEXT = st.sampled_from(ODD_TEXTS) | st.text(max_size=6)
NAME = st.sampled_from([*ODD_NAMES, GOOD]) | st.text(max_size=6)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def prepared(kind: str, write: Callable[[Path], object]) -> list[str]:
    """The ids of all rows that stage `prepare` writes for a source."""
    with TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        source.mkdir()
        write(source)
        section = {"kind": kind, "path": str(source)} | SOURCES.get(kind, {})
        limits = {"size": 16, "min_side": 1, "max_rejected": 1.0, "max_pixels": 100_000}
        params = PrepareParams.model_validate({"source": section, "prepare": limits})
        manifest, rejected = out / "manifest.parquet", out / "rejected.parquet"
        stage(source, ROOT / "withdrawn.csv", out / "shards", manifest, rejected, params=params)
        rejects = pd.read_parquet(rejected)
        assert rejects["reason"].map(bool).all()
        assert rejects["detail"].map(bool).all()
        return [*pd.read_parquet(manifest)["id"], *rejects["id"]]


def refusal(kind: str, write: Callable[[Path], object]) -> str:
    """The message with which `prepare` refuses a source; empty if it does not."""
    try:
        prepared(kind, write)
    except CotsError as error:
        return str(error)
    return ""


def escaped(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


@pytest.fixture(scope="module")
def image(make_image: Encoded) -> bytes:
    return make_image(20, 20)


@pytest.fixture(scope="module")
def video(make_video: Encoded) -> bytes:
    return make_video(2)


# JSON layouts


def json_file(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def karpathy_json(entries: list[Any]) -> dict[str, Any]:
    good = {"filename": GOOD, "split": "train", "sentences": [{"raw": "a dog"}]}
    return {"images": [good, *entries]}


def coco_json(images: list[Any], annotations: list[Any]) -> dict[str, Any]:
    good = [{"image_id": -1, "caption": "a dog"}]
    return {"images": [{"id": -1, "file_name": GOOD}, *images], "annotations": good + annotations}


def msrvtt_json(videos: list[Any], sentences: list[Any]) -> dict[str, Any]:
    good = [{"video_id": "good", "caption": "a dog"}]
    return {"videos": [{"video_id": "good", "split": "train"}, *videos], "sentences": good + sentences}


SENTENCES = st.lists(st.fixed_dictionaries({"raw": VALUE}) | VALUE, max_size=3) | VALUE
KARPATHY = st.fixed_dictionaries(
    {"filename": NAME | VALUE, "split": st.just("train")}, optional={"filepath": NAME | VALUE, "sentences": SENTENCES}
)


@drawn(30)
@given(entries=st.lists(KARPATHY | VALUE, max_size=6))
def test_every_entry_of_karpathys_json_is_a_row(image: bytes, entries: list[Any]) -> None:
    def write(source: Path) -> None:
        (source / GOOD).write_bytes(image)
        json_file(source / "dataset_x.json", karpathy_json(entries))

    assert len(prepared("karpathy", write)) == 1 + len(entries)


@drawn(30)
@given(
    images=st.lists(st.fixed_dictionaries({"id": st.integers(0, 3)}, optional={"file_name": NAME | VALUE}) | VALUE),
    annotations=st.lists(st.fixed_dictionaries({"image_id": st.integers(0, 3)}, optional={"caption": VALUE})),
)
def test_every_image_of_cocos_json_is_a_row(image: bytes, images: list[Any], annotations: list[Any]) -> None:
    def write(source: Path) -> None:
        (source / "train2017").mkdir()
        (source / "train2017" / GOOD).write_bytes(image)
        json_file(source / "annotations/captions_train2017.json", coco_json(images, annotations))

    assert len(prepared("coco", write)) == 1 + len(images)


VIDEO_ID = st.sampled_from(["good", "v0", 5, None, "x" * 300, "a\0b", "\ud800"])


@drawn(30)
@given(
    videos=st.lists(st.fixed_dictionaries({"split": st.just("train")}, optional={"video_id": VIDEO_ID}) | VALUE),
    sentences=st.lists(st.fixed_dictionaries({"video_id": VIDEO_ID}, optional={"caption": VALUE})),
)
def test_every_video_of_msrvtts_json_is_a_row(video: bytes, videos: list[Any], sentences: list[Any]) -> None:
    sentences = [sentence for sentence in sentences if sentence["video_id"] != "good"]

    def write(source: Path) -> None:
        (source / "good.mp4").write_bytes(video)
        json_file(source / "MSRVTT_data.json", msrvtt_json(videos, sentences))

    assert len(prepared("msrvtt", write)) == 1 + len(videos)


# Tables

BYTES = st.text(st.characters(codec="utf8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), max_size=6)
TABLE_TEXT = st.sampled_from(ODD_TEXTS) | BYTES  # of lone surrogates, those that stand for a byte
TABLE_NAME = st.sampled_from([*ODD_NAMES, GOOD]) | BYTES


def csv_table(rows: list[tuple[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("image", "caption"), (GOOD, "a dog"), *rows])
    return text.getvalue()


def tsv_table(rows: list[tuple[str, Any]]) -> str:
    return "".join(f"{name}\t{caption}\n" for name, caption in [("image", "caption"), (GOOD, "a dog"), *rows])


def jsonl_table(rows: list[tuple[str, Any]]) -> str:
    """Rows as objects; some of those without a caption lack the key."""
    cells = [{"image": name, "caption": text} for name, text in [(GOOD, "a dog"), *rows]]
    return "".join(json.dumps({key: cell for key, cell in row.items() if cell != ""}) + "\n" for row in cells)


def plain(text: str) -> str:
    """Without what only CSV can quote."""
    return "".join(character for character in text if character not in '\t\r\n"')


def is_clean(name: str, caption: object) -> bool:
    texts = caption if isinstance(caption, list) else [caption]
    return is_utf8(name) and all(text is None or (isinstance(text, str) and is_utf8(text)) for text in texts)


@drawn(30)
@given(
    table=st.one_of(
        st.tuples(st.just(csv_table), st.lists(st.tuples(TABLE_NAME, TABLE_TEXT))),
        st.tuples(st.just(tsv_table), st.lists(st.tuples(TABLE_NAME.map(plain), TABLE_TEXT.map(plain)))),
        st.tuples(st.just(jsonl_table), st.lists(st.tuples(NAME, VALUE))),
    )
)
def test_every_row_of_a_table_is_told_of(image: bytes, table: tuple[Callable[..., str], list[tuple[str, Any]]]) -> None:
    make, rows = table

    def write(source: Path) -> None:
        (source / GOOD).write_bytes(image)
        suffix = make.__name__.partition("_")[0]
        (source / f"t.{suffix}").write_bytes(make(rows).encode(errors="surrogateescape"))

    stripped = [(name.strip().replace("\\", "/"), caption) for name, caption in rows]  # paths as on Windows
    usable = {GOOD} | {name for name, caption in stripped if name and is_clean(name, caption)}
    unusable = [name for name, caption in stripped if not (name and is_clean(name, caption))]
    names = ["" if re.match(r"t\.\w+, line \d+$", name) else name for name in prepared("folder", write)]
    assert Counter(names) == Counter(map(escaped, [*usable, *unusable]))


# Tars

STEMS = [
    "{}",
    "./{}",
    "v1.0/{}",
    "a/b/{}",
    "../{}",
    "/abs/{}",
    "a b{}",
    "x\n{}",
    "-{}",
    "{}" * 60,
    "ключ{}",
    "caf\udce9{}",
]
JSONS = [b'{"caption": "j"}', b"[" * 100_000, b'{"caption": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"", b"[]", b'"x"']
SUFFIX = st.sampled_from(["jpg", "JPG", "png", "gif", "mp4", "bin", "input.jpg"])
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "image": st.tuples(SUFFIX, st.booleans()),
        "txt": st.sampled_from([b"a dog", b"", b"\xff\xfe", b"a\0b", b"x" * 600]),
        "json": st.sampled_from(JSONS) | VALUE.map(lambda value: json.dumps({"caption": value}).encode()),
    },
).filter(bool)


def tar_bytes(members: list[tuple[str, bytes]], form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def tar_members(stem: str, samples: list[dict[str, Any]], image: bytes) -> Iterator[tuple[str, bytes]]:
    for number, sample in enumerate(samples):
        for kind, value in sample.items():
            suffix, data = (value[0], image if value[1] else image[:200]) if kind == "image" else (kind, value)
            yield f"{stem.replace('{}', str(number))}.{suffix}", data


@drawn(30)
@given(
    stem=st.sampled_from(STEMS),
    samples=st.lists(MEMBERS, max_size=4),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    shuffle=st.randoms(use_true_random=False),
    apart=st.booleans(),
)
def test_every_key_of_a_tar_is_a_row(
    image: bytes, stem: str, samples: list[dict[str, Any]], form: int, shuffle: Any, apart: bool
) -> None:
    members = [*tar_members(stem, samples, image), ("._0.jpg", b"-"), ("__MACOSX/._0.jpg", b"-"), (".DS_Store", b"-")]
    if apart:
        shuffle.shuffle(members)

    def write(source: Path) -> None:
        good = [("good.jpg", image), ("good.txt", b"a dog")]
        (source / "0.tar").write_bytes(tar_bytes(good + members, form))

    keys = [stem.removeprefix("./").replace("{}", str(number)) for number in range(len(samples))]
    assert Counter(prepared("webdataset", write)) == Counter(escaped(f"0/{key}") for key in ["good", *keys])


# Damage

EDIT = st.tuples(
    st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4) | st.sampled_from([b"[" * 9999, b"9" * 5000])
)
FILES: dict[str, tuple[str, bytes]] = {
    "webdataset": (
        "0.tar",
        tar_bytes([(f"{n}.{suffix}", b"x" * 600) for n in range(3) for suffix in ("jpg", "txt")], 1),
    ),
    "karpathy": ("dataset_x.json", json.dumps(karpathy_json([])).encode()),
    "coco": ("annotations/captions_train2017.json", json.dumps(coco_json([], [])).encode()),
    "msrvtt": ("MSRVTT_data.json", json.dumps(msrvtt_json([], [])).encode()),
}
TABLES = {
    f"t.{kind}": make([]).encode() for kind, make in [("csv", csv_table), ("tsv", tsv_table), ("jsonl", jsonl_table)]
}


@pytest.mark.parametrize(
    ("kind", "name", "data"),
    [
        pytest.param(kind, *file, id=file[0])
        for kind, file in [*FILES.items(), *(("folder", table) for table in TABLES.items())]
    ],
)
def test_a_damaged_file_is_read_or_refused_in_one_line(kind: str, name: str, data: bytes) -> None:
    @drawn(40)
    @given(edits=st.lists(EDIT, min_size=1, max_size=4))
    def holds(edits: list[tuple[float, int, bytes]]) -> None:
        damaged = bytearray(data)
        for position, length, replacement in edits:
            start = round(position * len(damaged))
            damaged[start : start + length] = replacement

        def write(source: Path) -> None:
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_bytes(damaged)

        assert "\n" not in refusal(kind, write)

    holds()
