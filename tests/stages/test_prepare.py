import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from cots.config.params import Params
from cots.data.image_decoding import UnusableImage
from cots.data.ingest.source_file import read_source_file
from cots.data.languages import count_languages
from cots.data.manifest import SCHEMA, read_manifest, schema_with
from cots.data.shards import read_shard
from cots.data.verdicts import pair_key, set_verdict
from cots.data.withdrawn import add_withdrawn
from cots.errors import BadInput, RunFailed
from cots.stages.prepare import stage
from tests.buckets import upload, write_object
from tests.deployed import squares_project

ROOT = Path(__file__).parents[2]
Encoded = Callable[..., bytes]


def params_with(source: dict[str, Any], **changed: object) -> Params:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["source"] = source
    content["prepare"] |= {
        "min_side": 16,
        "size": 32,
        "max_rejected": 1.0,
        "samples_per_shard": 3,
        "max_pixels": 1_000_000,
    } | changed
    return Params.model_validate(content)


def folder_params(path: Path, **changed: object) -> Params:
    return params_with({"kind": "folder", "path": str(path), "seed": 0, "holdout": {"val": 0, "test": 0}}, **changed)


def prepared(
    out: Path, params: Params, *, withdrawn: Path = ROOT / "withdrawn.csv", verdicts: Path = ROOT / "verdicts.csv"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest, and the rejects by id."""
    manifest, rejected = out / "manifest.parquet", out / "rejected.parquet"
    stage(params.source.path, withdrawn, out / "shards", manifest, rejected, verdicts, params=params)
    return read_manifest(manifest), pd.read_parquet(rejected).set_index("id")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def table(path: Path, rows: list[str]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "captions.csv").write_bytes("\n".join(["image,caption,split", *rows]).encode(errors="surrogateescape"))
    return path


@pytest.fixture
def source(tmp_path: Path, make_image: Encoded) -> Path:
    """A folder with nine usable images, two of them without a caption, and one sample for each reason of rejection."""
    path, whole = tmp_path / "source", make_image(200, 160)
    files = {
        "empty.jpg": b"",
        "text.jpg": b"this is a text",
        "cut.jpg": whole[: len(whole) // 2],
        "tiny.jpg": make_image(15, 15),
        "huge.jpg": make_image(2000, 600),
        "blank.jpg": make_image(),
        "long.jpg": make_image(),
        "latin.jpg": make_image(),
    }
    files |= {f"good{i}.jpg": make_image(40 + i, 32, seed=i) for i in range(7)}
    rows = [f"{name},a picture,train" for name in files if name[:4] not in ("blan", "long", "lati", "good")]
    rows += [f"good{i}.jpg,caption {i},{'train' if i < 4 else 'val'}" for i in range(7)]
    rows += ["blank.jpg,   ,train", f"long.jpg,{'word ' * 200},train", "latin.jpg,caf\udce9,train"]
    rows += ["absent.jpg,a,train", "../secret.jpg,a,train", f"{tmp_path / 'secret.jpg'},a,train", "link.jpg,a,train"]
    table(path, rows)
    for name, data in files.items():
        (path / name).write_bytes(data)
    (tmp_path / "secret.jpg").write_bytes(make_image())
    (path / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return path


def test_everything_unusable_is_rejected_with_its_reason_and_the_rest_is_kept(tmp_path: Path, source: Path) -> None:
    manifest, rejected = prepared(tmp_path / "out", folder_params(source))
    assert rejected["reason"].to_dict() == {
        "empty.jpg": "empty file",
        "text.jpg": "not a picture",
        "cut.jpg": "cut short",
        "tiny.jpg": "too small",
        "huge.jpg": "too many pixels",
        "latin.jpg": "caption not UTF-8",
        "absent.jpg": "no such file",
        "../secret.jpg": "outside the data folder",
        str(tmp_path / "secret.jpg"): "outside the data folder",
        "link.jpg": "outside the data folder",
    }
    assert rejected["detail"].map(bool).all()
    assert list(manifest["id"]) == [*(f"good{i}.jpg" for i in range(7)), "blank.jpg", "long.jpg"]
    in_gallery = manifest["split"] == "gallery"
    assert list(manifest.loc[in_gallery, "id"]) == ["blank.jpg", "long.jpg"]
    assert list(manifest["captions"].map(len)) == [*[1] * 7, 0, 0]


@pytest.fixture
def linked(tmp_path: Path, make_image: Encoded) -> Path:
    """A folder whose images are links to files and folders elsewhere, by a table that also tries to go past a link."""
    elsewhere, path = tmp_path / "blobs", tmp_path / "source"
    (elsewhere / "deep").mkdir(parents=True)
    for seed, name in enumerate(["0a1b", "deep/b.jpg", "c.jpg"]):
        (elsewhere / name).write_bytes(make_image(seed=seed))
    names = ["a.jpg", "more/b.jpg", "more/../c.jpg", "../blobs/c.jpg", str(elsewhere / "c.jpg"), "gone.jpg"]
    table(path, [f"{name},a dog,train" for name in names])
    (path / "a.jpg").symlink_to("../blobs/0a1b")
    (path / "gone.jpg").symlink_to("../blobs/2c3d")
    (path / "more").symlink_to(elsewhere / "deep")
    return path


def test_links_out_of_the_folder_are_followed_on_request_alone(tmp_path: Path, linked: Path) -> None:
    manifest, rejected = prepared(tmp_path / "out", folder_params(linked, follow_symlinks=True))
    assert list(manifest["id"]) == ["a.jpg", "more/b.jpg"]
    assert rejected["reason"].to_dict() == {
        "more/../c.jpg": "no such file",  # the operating system would find blobs/c.jpg
        "../blobs/c.jpg": "outside the data folder",
        str(tmp_path / "blobs/c.jpg"): "outside the data folder",
        "gone.jpg": "no such file",
    }
    with pytest.raises(BadInput, match="no usable sample"):
        prepared(tmp_path / "strict", folder_params(linked))
    details = pd.read_parquet(tmp_path / "strict/rejected.parquet").set_index("id")["detail"]
    assert details["a.jpg"].endswith("blobs/0a1b: see prepare.follow_symlinks")


def tar_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


KARPATHY = {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a dog"}]}]}
COCO = {"images": [{"id": 1, "file_name": "../a.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
LISTINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {  # files that list the image a.jpg, by their names
    "captions.csv": ("folder", lambda _: b"image,caption\na.jpg,a dog\n"),
    "a.txt": ("folder", lambda _: b"a dog\n"),
    "dataset_x.json": ("karpathy", lambda _: json.dumps(KARPATHY).encode()),
    "annotations/captions_train2017.json": ("coco", lambda _: json.dumps(COCO).encode()),
    "0.tar": ("webdataset", lambda image: tar_of({"a.jpg": image, "a.txt": b"a dog"})),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_what_lists_the_samples_may_lead_out_of_the_folder_on_request_alone(
    tmp_path: Path, make_image: Encoded, name: str
) -> None:
    kind, listing = LISTINGS[name]
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    (source / "annotations").mkdir(parents=True)
    (source / "train2017").mkdir()
    (source / "a.jpg").write_bytes(make_image())
    elsewhere.write_bytes(listing(make_image()))
    (source / name).symlink_to(elsewhere)
    section = {"kind": kind, "path": str(source)}
    with pytest.raises(BadInput, match="no usable sample: 1 are rejected"):
        prepared(tmp_path / "strict", params_with(section))
    [row] = pd.read_parquet(tmp_path / "strict/rejected.parquet").to_dict("records")
    assert row["reason"] == "outside the data folder"
    assert row["detail"] == f"{source / name} leads to {elsewhere}: see prepare.follow_symlinks"
    manifest, _ = prepared(tmp_path / "out", params_with(section, follow_symlinks=True))
    assert list(manifest["captions"].map(list)) == [["a dog"]]


@pytest.mark.slow
def test_a_source_in_a_bucket_gives_the_same_bytes_and_rejects_by_the_same_limits(
    tmp_path: Path, source: Path, bucket_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "link.jpg").unlink()  # a bucket has none
    upload(source, bucket_folder)
    write_object(bucket_folder.parent / "secret.jpg", b"secret")
    params = folder_params(source), folder_params(bucket_folder)
    assert params[1].source.path == bucket_folder
    (_, from_disk), (_, from_bucket) = (prepared(tmp_path / f"out{i}", one) for i, one in enumerate(params))
    assert digests(tmp_path / "out0/shards") == digests(tmp_path / "out1/shards")
    assert (tmp_path / "out0/manifest.parquet").read_bytes() == (tmp_path / "out1/manifest.parquet").read_bytes()
    assert from_bucket["reason"].to_dict() == from_disk["reason"].to_dict()
    assert from_bucket.loc["../secret.jpg", "detail"] == (
        f"{bucket_folder}/../secret.jpg is {bucket_folder.parent}/secret.jpg"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LISTINGS, "metadata.parquet", "a/metadata.csv"])
def test_every_layout_is_read_from_a_bucket(
    tmp_path: Path, make_image: Encoded, bucket_folder: Path, name: str
) -> None:
    kind, listing = LISTINGS.get(name, ("folder", lambda _: b"image,caption\na.jpg,a dog\n"))
    source = tmp_path / "source"
    for file in ("a.jpg", "train2017/x.jpg", "a/a.jpg", name):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_bytes(make_image())
    if name == "metadata.parquet":
        pd.DataFrame({"image": ["a.jpg", "b.jpg"], "caption": [["a dog"], ["a cat", "two cats"]]}).to_parquet(
            source / name
        )
    else:
        (source / name).write_bytes(listing(make_image()))
    upload(source, bucket_folder)
    keys = {"kind": kind} | ({"table": "*/metadata.csv"} if "/metadata" in name else {})
    manifests = [
        prepared(tmp_path / out, params_with(keys | {"path": str(path)}))[0].drop(columns="shard")
        for out, path in (("out0", source), ("out1", bucket_folder))
    ]
    pd.testing.assert_frame_equal(manifests[0], manifests[1])
    assert len(manifests[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "s3://nowhere-at-all/x does not exist: set source.path to the folder that holds the data set"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            'Could not connect to the endpoint URL: "http://127.0.0.1:9/nowhere-at-all?list-type=2&prefix=x%2F&'
            'delimiter=%2F&encoding-type=url": check the network and AWS_ENDPOINT_URL, and run it again',
        ),
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "Unable to locate credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in "
            "AWS_PROFILE",
        ),
    ],
    ids=["absent", "unreachable", "no credentials"],
)
def test_a_bucket_that_cannot_be_read_gives_one_line(
    tmp_path: Path, bucket_folder: Path, fork_python: str, changed: dict[str, str | None], line: str
) -> None:
    (tmp_path / "params.yaml").write_text("source: {kind: webdataset, path: s3://nowhere-at-all/x}\n")
    environment = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1", **changed}
    command = [
        fork_python,
        "-m",
        "cots.stages.prepare",
        str(ROOT / "withdrawn.csv"),
        "shards",
        "m.parquet",
        "r.parquet",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == f"error: {line}"
    assert len(done.stderr.splitlines()) == 1


class _Overloaded(BaseHTTPRequestHandler):
    """A server that answers every request with 503."""

    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.mark.slow
def test_a_bucket_that_refuses_for_now_rejects_no_sample(bucket_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_object(bucket_folder / "a.jpg", b"some bytes")
    read = partial(read_source_file, root=bucket_folder, follow_symlinks=False, max_bytes=10)
    assert read(bucket_folder / "a.jpg") == b"some bytes"
    for name in ("b.jpg", "x" * 1100, "é" * 600):
        with pytest.raises(UnusableImage) as missing:
            read(bucket_folder / name)
        assert missing.value.reason == "no such file"
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Overloaded)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(OSError, match="Service Unavailable"):
            read(bucket_folder / "a.jpg")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()
        server.server_close()


def test_the_manifest_tells_what_the_shards_hold_in_their_order(tmp_path: Path, source: Path) -> None:
    manifest, _ = prepared(tmp_path / "out", folder_params(source))
    assert list(manifest.columns) == SCHEMA.names
    assert manifest["key"].is_monotonic_increasing
    assert manifest["key"].is_unique
    assert list(manifest["shard"].unique()) == [
        "train/image-00000.tar",
        "train/image-00001.tar",
        "val/image-00000.tar",
        "gallery/image-00000.tar",
    ]
    stored = [sample for shard in manifest["shard"].unique() for sample in read_shard(tmp_path / "out/shards" / shard)]
    rows = manifest.to_dict("records")
    assert [(s.key, s.id, list(s.captions), len(s.frames), sum(map(len, s.frames))) for s in stored] == [
        (row["key"], row["id"], list(row["captions"]), row["frames"], row["bytes"]) for row in rows
    ]
    assert [(row["width"], row["height"]) for row in rows[:7]] == [(40 + i, 32) for i in range(7)]


def test_odd_names_and_captions_are_stored_as_the_table_has_them(tmp_path: Path, make_image: Encoded) -> None:
    names = [
        "ä ö.jpg",
        "a,b.jpg",
        "a'b.jpg",
        "a&b<c>.jpg",
        "100%.jpg",
        "#1.jpg",
        "🐶.jpg",
        "NA",
        "null",
        "-r.jpg",
        "d/é.jpg",
    ]
    captions = [
        "🐶🏽‍♂️ a dog",
        "كلب أحمر",
        "two\nlines",
        '<b>"quoted"</b>',
        "tab\tand nul \0",
        "=cmd|' /C calc'!A0",
        "NaN",
    ]
    captions += ["[PAD] [MASK] ##ing", "\u202eright to left", "日本語の説明", "{braces} $dollar `tick`"]
    path = tmp_path / "source"
    (path / "d").mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(make_image())
    with (path / "captions.csv").open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *zip(names, captions, strict=True)])
    manifest, rejected = prepared(tmp_path / "out", folder_params(path))
    assert rejected.empty
    assert list(zip(manifest["id"], map(list, manifest["captions"]), strict=True)) == [
        (name, [caption]) for name, caption in zip(names, captions, strict=True)
    ]
    shards = [tmp_path / "out/shards" / shard for shard in manifest["shard"].unique()]
    stored = [(sample.id, *sample.captions) for shard in shards for sample in read_shard(shard)]
    assert stored == list(zip(names, captions, strict=True))


def test_two_runs_give_the_same_bytes(tmp_path: Path, source: Path) -> None:
    for name in ("a", "b"):
        prepared(tmp_path / name, folder_params(source))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert len(digests(tmp_path / "a")) == 6


def test_shards_of_an_earlier_run_do_not_stay(tmp_path: Path, source: Path) -> None:
    prepared(tmp_path / "out", folder_params(source, samples_per_shard=1))
    prepared(tmp_path / "out", folder_params(source))
    assert len(list((tmp_path / "out").rglob("*.tar"))) == 4


def test_too_many_rejects_fail_the_run_and_the_list_of_them_stays(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RunFailed) as raised:
        prepared(tmp_path / "out", folder_params(source, max_rejected=0.5))
    message = str(raised.value)
    assert "10 of 19 samples are rejected, more than prepare.max_rejected 0.5" in message
    assert "outside the data folder 3" in message
    assert "first: empty.jpg: 0 bytes" in message
    assert "\n" not in message
    assert len(pd.read_parquet(tmp_path / "out/rejected.parquet")) == 10
    assert not (tmp_path / "out/manifest.parquet").exists()


def test_without_a_usable_sample_the_source_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "source", ["a.jpg,a dog,val"])
    with pytest.raises(BadInput, match="no usable sample: 1 are rejected"):
        prepared(tmp_path / "out", folder_params(path, max_rejected=1))


def test_samples_to_measure_on_are_enough_for_an_index_before_training(tmp_path: Path, make_image: Encoded) -> None:
    """Validation, which comes before any training, misses those to train on."""
    path = table(tmp_path / "source", ["a.jpg,a dog,val"])
    (path / "a.jpg").write_bytes(make_image())
    manifest, _ = prepared(tmp_path / "out", folder_params(path))
    assert list(manifest["split"]) == ["val"]


def test_captions_are_stripped_and_those_too_long_are_left_out(tmp_path: Path, make_image: Encoded) -> None:
    path = table(tmp_path / "source", ["a.jpg,  a dog ,train", f"a.jpg,{'x' * 501},train", "a.jpg,,train"])
    (path / "a.jpg").write_bytes(make_image())
    manifest, rejected = prepared(tmp_path / "out", folder_params(path, max_caption_chars=500))
    assert [list(texts) for texts in manifest["captions"]] == [["a dog"]]
    assert rejected.empty


def test_of_samples_with_one_id_the_first_usable_one_stays(tmp_path: Path, make_image: Encoded) -> None:
    path = tmp_path / "source"
    path.mkdir()
    entries = [f'{{"filename": "{n}", "split": "train", "sentences": [{{"raw": "{t}"}}]}}' for n, t in
               (("a.jpg", r"\udce9"), ("a.jpg", "one"), ("a.jpg", "two"))]  # fmt: skip
    (path / "dataset_x.json").write_text(f'{{"images": [{", ".join(entries)}]}}')
    (path / "a.jpg").write_bytes(make_image())
    manifest, rejected = prepared(tmp_path / "out", params_with({"kind": "karpathy", "path": str(path)}))
    assert [list(texts) for texts in manifest["captions"]] == [["one"]]
    assert list(rejected["reason"]) == ["caption not UTF-8", "duplicate id"]


def test_a_file_of_more_than_a_gibibyte_is_rejected_unread(tmp_path: Path, make_image: Encoded) -> None:
    path = table(tmp_path / "source", ["a.jpg,a dog,train", "b.jpg,a cat,train"])
    for name in ("a.jpg", "b.jpg"):
        (path / name).write_bytes(make_image())
    os.truncate(path / "b.jpg", (1 << 30) + 1)  # a hole, so that nothing is written
    _, rejected = prepared(tmp_path / "out", folder_params(path))
    assert rejected["reason"].to_dict() == {"b.jpg": "too many bytes"}


def test_names_that_are_not_utf8_are_rejected_and_escaped(tmp_path: Path, make_image: Encoded) -> None:
    path = tmp_path / "source"
    path.mkdir()
    names = [b"a.jpg", b"caf\xe9.jpg"]
    entry = b'{"filename": "%s", "split": "train", "sentences": [{"raw": "a dog"}]}'
    (path / os.fsdecode(b"dataset_\xe9.json")).write_bytes(b'{"images": [%s]}' % b", ".join(entry % n for n in names))
    for name in names:
        (path / os.fsdecode(name)).write_bytes(make_image())
    manifest, rejected = prepared(tmp_path / "out", params_with({"kind": "karpathy", "path": str(path)}))
    assert manifest[["id", "origin"]].to_numpy().tolist() == [["a.jpg", r"dataset_\udce9.json: a.jpg"]]
    assert rejected["reason"].to_dict() == {r"caf\udce9.jpg": "name not UTF-8"}


def test_clips_become_frames_and_damaged_ones_rejects(tmp_path: Path, make_video: Encoded) -> None:
    path = tmp_path / "source"
    (path / "videos").mkdir(parents=True)
    for number, data in enumerate([make_video(12), make_video(2), make_video(12)[:400]]):
        (path / f"videos/video{number}.mp4").write_bytes(data)
    videos = ", ".join(f'{{"video_id": "video{n}", "split": "train"}}' for n in range(3))
    sentences = ", ".join(f'{{"video_id": "video{n}", "caption": "grey {n}"}}' for n in range(3))
    (path / "MSRVTT_data.json").write_text(f'{{"videos": [{videos}], "sentences": [{sentences}]}}')
    section = {"kind": "msrvtt", "path": str(path), "protocol": "full"}
    manifest, rejected = prepared(tmp_path / "out", params_with(section, max_frames=4))
    assert list(manifest["frames"]) == [4, 2]
    assert list(manifest["shard"]) == ["train/video-00000.tar"] * 2
    assert (manifest["width"][0], manifest["height"][0]) == (64, 48)
    assert rejected["reason"].to_dict() == {"video2": "not a clip"}


def test_drawn_scenes_keep_their_flags_of_wrong_captions(tmp_path: Path) -> None:
    source = yaml.safe_load((ROOT / "params.yaml").read_text())["source"]
    counts = {"train": 40, "val": 2, "test": 2}
    source |= {"path": str(ROOT / source["path"]), "images": counts, "videos": counts, "caption_noise": 0.3}
    manifest, rejected = prepared(tmp_path / "out", params_with(source, size=64))
    assert rejected.empty
    assert (manifest["wrong"].map(len) == manifest["captions"].map(len)).all()
    wrong = manifest["wrong"].map(sum).groupby(manifest["split"]).sum()
    assert wrong["train"] > 60
    assert wrong["val"] == wrong["test"] == 0
    for sample in read_shard(tmp_path / "out/shards/train/image-00000.tar"):
        assert set(type(sample).__slots__) == {"key", "id", "captions", "frames", "languages"}


def test_a_withdrawn_sample_is_left_out_and_listed_and_is_no_fault_of_the_source(
    tmp_path: Path, make_image: Encoded
) -> None:
    source = table(tmp_path / "source", ["a.jpg,a dog,train", "b.jpg,a cat,train"])
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        (source / name).write_bytes(make_image(seed=seed))
    withdrawn = tmp_path / "withdrawn.csv"
    shutil.copy(ROOT / "withdrawn.csv", withdrawn)
    add_withdrawn(withdrawn, {"a.jpg": "its owner asked, in writing"})
    manifest, rejected = prepared(tmp_path / "out", folder_params(source, max_rejected=0.0), withdrawn=withdrawn)
    assert list(manifest["id"]) == ["b.jpg"]
    assert rejected[["reason", "detail"]].to_numpy().tolist() == [["withdrawn", "its owner asked, in writing"]]


def test_a_caption_that_people_rejected_is_left_out_of_its_sample_alone(tmp_path: Path, make_image: Encoded) -> None:
    rows = ["a.jpg,a dog,train", "a.jpg,a cat,train", "b.jpg,a cat,train", "b.jpg, a bird ,train", "c.jpg,a fish,train"]
    source = table(tmp_path / "source", rows)
    for seed, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        (source / name).write_bytes(make_image(seed=seed))
    verdicts = tmp_path / "verdicts.csv"
    for name, caption in (("a.jpg", "a cat"), ("b.jpg", "a bird"), ("c.jpg", "a fish"), ("c.jpg", "a whale")):
        set_verdict(verdicts, pair_key(name, caption), "rejected")
    set_verdict(verdicts, pair_key("a.jpg", "a dog"), "accepted")
    manifest, rejected = prepared(tmp_path / "out", folder_params(source), verdicts=verdicts)
    assert {row["id"]: list(row["captions"]) for row in manifest.to_dict("records")} == {
        "a.jpg": ["a dog"],
        "b.jpg": ["a cat"],
        "c.jpg": [],
    }
    assert list(manifest["wrong"].map(len)) == [1, 1, 0]
    assert list(manifest["split"]) == ["train", "train", "gallery"]
    assert rejected.empty


def run_stage(folder: Path, source: Path, python: str) -> subprocess.CompletedProcess[str]:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["source"] = {"kind": "folder", "path": str(source), "seed": 0, "holdout": {"val": 0, "test": 0}}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    outputs = ["shards", "m.parquet", "r.parquet"]
    command = [python, "-m", "cots.stages.prepare", str(ROOT / "withdrawn.csv"), *outputs]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.mark.slow
def test_from_the_shell_a_missing_folder_gives_one_line_and_exit_code_2(tmp_path: Path) -> None:
    outcome = run_stage(tmp_path, tmp_path / "absent", sys.executable)
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error: ")
    assert "absent does not exist: set source.path" in line


@pytest.mark.slow
def test_from_the_shell_a_source_of_absent_images_gives_one_line_and_exit_code_1(
    tmp_path: Path, fork_python: str
) -> None:
    path = table(tmp_path / "source", ["a.jpg,a dog,train", "b.jpg,a cat,train"])
    outcome = run_stage(tmp_path, path, fork_python)
    assert outcome.returncode == 1
    errors = [line for line in outcome.stderr.splitlines() if "samples in" not in line]
    assert len(errors) == 1
    assert "error: 2 of 2 samples are rejected" in errors[0]
    assert "no such file 2" in errors[0]
    assert "a.jpg" in errors[0]


@pytest.mark.slow
def test_no_shell_reads_the_name_of_the_data_or_of_the_project(
    tmp_path: Path, tiny_package: Path, fork_python: str
) -> None:
    project = squares_project(tmp_path / "my pröject #1 100% [x] $HOME", tiny_package, fork_python)
    name = " a $(touch RUN) `touch RUN` ${HOME} $HOME \"b\" 'c' \\ * ; touch RUN # é\n-d"
    (project / "pictures").rename(project / name)
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["source"]["path"] = name
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    command = [fork_python, "-m", "dvc", "repro", "--single-item", "prepare"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_manifest(project / "data/manifest.parquet")) > 0
    assert not list(project.rglob("RUN"))


def test_shards_and_manifest_have_languages_only_where_a_table_has(tmp_path: Path, make_image: Encoded) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(("a.jpg", "b.jpg")):
        (source / name).write_bytes(make_image(seed=number))
    rows = ["a.jpg,a dog,en", "a.jpg,一只狗,zh_hans", "a.jpg, ,de", "a.jpg,?,", "b.jpg,un chat,fr"]
    (source / "t.csv").write_text("\n".join(["image,caption,language", *rows]))
    manifest, _ = prepared(tmp_path / "with", folder_params(source))
    assert pq.read_schema(tmp_path / "with/manifest.parquet") == schema_with({"languages"})
    assert [list(languages) for languages in manifest["languages"]] == [["en", "zh-Hans", ""], ["fr"]]
    assert count_languages(manifest) == {"en": 1, "zh-Hans": 1, "": 1, "fr": 1}
    stored = read_shard(tmp_path / "with/shards" / manifest["shard"][0])
    assert [sample.languages for sample in stored] == [("en", "zh-Hans", ""), ("fr",)]

    params = folder_params(source)
    without = params.model_copy(update={"source": params.source.model_copy(update={"language_column": None})})
    plain, _ = prepared(tmp_path / "without", without)
    assert pq.read_schema(tmp_path / "without/manifest.parquet") == SCHEMA
    assert count_languages(plain) == {"": 4}
    shard = tmp_path / "without/shards" / plain["shard"][0]
    assert b"languages" not in shard.read_bytes()
    assert [sample.languages for sample in read_shard(shard)] == [(), ()]


def test_tables_that_are_written_in_pieces_have_the_same_rows_in_the_same_order(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, rejected = prepared(tmp_path / "whole", folder_params(source))
    monkeypatch.setattr("cots.data.ingest.ledger.PIECE", 2)
    in_pieces = prepared(tmp_path / "pieces", folder_params(source))
    assert pq.read_metadata(tmp_path / "pieces/manifest.parquet").num_row_groups == 5
    pd.testing.assert_frame_equal(in_pieces[0], manifest)
    pd.testing.assert_frame_equal(in_pieces[1], rejected)
    assert not list(tmp_path.rglob("*.partial"))
