"""`cots init FOLDER`: the forms in which people keep images and captions, and the ways to get it wrong."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from pydantic import ValidationError

from cots.cli.layout import drop_code_deps
from cots.cli.pipeline import VERSION, reproduce
from cots.config.params import Params
from cots.data.manifest import read_manifest
from cots.data.sources.folder import FolderSourceConfig
from tests.conftest import Cots

ROOT = Path(__file__).parents[2]
Encoded = Callable[..., bytes]
NAMES = [f"{number:02}.jpg" for number in range(40)]


@pytest.fixture
def photos(tmp_path: Path, make_image: Encoded) -> Path:
    """Forty images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        (folder / name).write_bytes(make_image(seed=seed))
    return folder


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as the working folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    monkeypatch.chdir(folder)
    return folder


def frame(image: str = "image", caption: str = "caption") -> pd.DataFrame:
    return pd.DataFrame({image: NAMES, caption: [f"photo {name}" for name in NAMES], "album": "summer"})


def write_texts(folder: Path) -> None:
    for name in NAMES:
        (folder / name).with_suffix(".txt").write_text(f"photo {name}")


def lines_of(out: str) -> dict[str, str]:
    """The lines by their first word; a line without belongs to the one before."""
    lines: dict[str, str] = {}
    for line in out.splitlines():
        name = line[:10].strip() or list(lines)[-1]
        lines[name] = f"{lines[name]} {line[11:]}" if name in lines else line[11:]
    return lines


COLUMNS = {"image_column": "image", "caption_column": "caption"}
OTHERS = {"image_column": "file_name", "caption_column": "text"}
FORMS: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "captions.csv": (lambda folder: frame().to_csv(folder / "captions.csv", index=False), COLUMNS),
    "t.tsv": (lambda folder: frame("Path", "Title").to_csv(folder / "t.tsv", sep="\t", index=False),
              {"image_column": "Path", "caption_column": "Title"}),
    "t.jsonl": (lambda folder: frame().to_json(folder / "t.jsonl", orient="records", lines=True), COLUMNS),
    "t.parquet": (lambda folder: frame().to_parquet(folder / "t.parquet"), COLUMNS),
    "metadata.csv": (lambda folder: frame(*OTHERS.values()).to_csv(folder / "metadata.csv", index=False), OTHERS),
    "metadata.jsonl": (lambda folder: frame(*OTHERS.values()).to_json(folder / "metadata.jsonl", orient="records",
                                                                     lines=True), OTHERS),
    "no caption table": (write_texts, COLUMNS),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_captions_is_found_and_becomes_parameters(form: str, cots: Cots, photos: Path) -> None:
    write, columns = FORMS[form]
    write(photos)
    code, out, err = cots("init", photos, "--encoders", "scratch")
    assert (code, err) == (0, "")
    source = Params.load().source.model_dump()
    assert source["kind"] == "folder"
    assert source["path"] == photos
    assert {name: source[name] for name in columns} == columns
    lines = lines_of(out)
    assert lines["found"].startswith(f"40 images in {photos}; {form}")
    assert lines["captions"].startswith("40 captions of 40 images")
    assert lines.get("kept") == (None if form.startswith("no") else "columns album, as metadata of the samples")
    assert lines["splits"] == "train 37, val 0, test 3 images (about 20% test, drawn by name)"
    assert "3 test images are too few" in lines["gate"]
    assert lines["rejected"] == "none of 40 that were opened"
    assert lines["next"].startswith("dvc repro && cots registry publish && cots serve ")
    samples = list(Params.load().source.read())
    assert sum(sample.split == "test" for sample in samples) == 3


def test_hugging_faces_metadata_in_a_folder_of_each_split_are_read_together(cots: Cots, photos: Path) -> None:
    for split, first, last in (("train", 0, 30), ("test", 30, 39)):
        (photos / split).mkdir()
        for name in NAMES[first:last]:
            (photos / name).rename(photos / split / name)
        frame(*OTHERS.values())[first:last].to_csv(photos / split / "metadata.csv", index=False)
    lines = lines_of(cots("init", photos, "--encoders", "scratch")[1])
    assert lines["found"] == f"39 images in {photos}; */metadata.csv, images in column file_name"
    assert lines["splits"] == "train 30, val 0, test 9 images (as the table says)"
    assert "1 more files that the table does not name" in lines["captions"]
    sample = next(iter(Params.load().source.read()))
    assert (sample.id, sample.split, sample.origin) == ("test/30.jpg", "test", "test/metadata.csv, line 2")
    assert sample.content == photos / "test/30.jpg"


def test_a_folder_of_images_alone_is_a_gallery(cots: Cots, photos: Path) -> None:
    lines = lines_of(cots("init", photos, "--encoders", "scratch")[1])
    assert lines["captions"] == "none; 40 without are searched, not trained or measured on"
    assert "splits" not in lines
    (photos / "dataset_photos.json").write_text("{}")
    hint = f"another layout may hold captions: cots init flickr8k --data {photos}"
    assert hint in cots("init", photos, "--encoders", "scratch")[1]
    assert lines["next"].startswith("write captions, or give --encoders that search without training")


def test_batches_are_no_larger_than_the_data(cots: Cots, photos: Path) -> None:
    FORMS["captions.csv"][0](photos)
    assert cots("init", photos)[0] == 0
    params = Params.load()
    runs = (params.pretrain, params.finetune["image-text"], params.dvae)
    assert [run.batch_size for run in runs] == [32, 32, 32]
    assert (params.pretrain.steps, params.evaluate.split) == (10, "test")
    assert params.index.splits == ("train", "val", "test")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="proposes other encoders for a GPU")
def test_without_a_gpu_the_encoders_are_the_smallest_that_search_before_training(cots: Cots, photos: Path) -> None:
    lines = lines_of(cots("init", photos)[1])
    assert lines["encoders"].startswith("clip-b32: ")
    assert "no GPU take about" in lines["encoders"]
    assert lines["next"].startswith(f"cots index {photos} --encoders clip-b32 && cots serve ")
    assert Params.load().model.init_from == "openai/clip-vit-base-patch32"


def test_splits_of_the_table_are_kept_and_measured_on(cots: Cots, photos: Path) -> None:
    frame().assign(split=["train"] * 5 + ["val"] * 35).to_csv(photos / "t.csv", index=False)
    lines = lines_of(cots("init", photos, "--encoders", "scratch")[1])
    assert lines["splits"] == "train 5, val 35, test 0 images (as the table says)"
    items = "35 val images (there are no test images)"
    gain = f"{items} are sure to show a gain of 16.6 points of mean recall; 385 would show 5, the gate's margin"
    assert lines["gate"] == gain
    assert Params.load().evaluate.split == "val"


def test_languages_of_captions_are_told_and_are_no_metadata(cots: Cots, photos: Path) -> None:
    frame().assign(language=["en"] * 30 + ["zh_hans"] * 10).to_csv(photos / "t.csv", index=False)
    lines = lines_of(cots("init", photos, "--encoders", "scratch")[1])
    assert lines["languages"] == "en 30, zh-Hans 10, column language"
    assert lines.get("kept") == "columns album, as metadata of the samples"


def test_what_cannot_be_read_is_told_beforehand(cots: Cots, photos: Path) -> None:
    (photos / NAMES[0]).write_text("no image")
    (photos / NAMES[1]).unlink()
    rows = frame().assign(caption=["", *["x"] * 39])
    rows.to_csv(photos / "t.csv", index=False)
    (photos / "more.jpg").write_bytes(b"-")
    lines = lines_of(cots("init", photos, "--encoders", "scratch")[1])
    assert lines["rejected"] == (
        f"2 of 40 that were opened (not a picture 1, no such file 1); first {NAMES[0]}: 8 bytes that are none of JPEG, "
        "PNG, WEBP, GIF, BMP, TIFF, AVIF, JPEG2000, ICO, TGA"
    )
    assert "1 without are searched" in lines["captions"]
    assert "1 more files that the table does not name: --include-unlisted takes them" in lines["captions"]
    (photos / NAMES[2]).unlink()
    assert "above prepare.max_rejected 0.05 the run stops" in cots("init", photos, "--include-unlisted")[1]
    assert len(list(Params.load().source.read())) == 41


def test_videos_with_captions_are_what_is_to_be_found(cots: Cots, tmp_path: Path, make_video: Encoded) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").write_bytes(make_video(4))
        (folder / f"{name}.txt").write_text("a film")
    lines = lines_of(cots("init", folder, "--encoders", "scratch")[1])
    assert lines["found"] == f"3 videos in {folder}; no caption table"
    params = Params.load()
    assert (params.index.target, list(params.finetune)) == ("video-text", ["video-text"])


def test_one_of_several_tables_and_its_columns_can_be_named(cots: Cots, photos: Path) -> None:
    for name in ("a.csv", "b.csv"):
        frame("foto", "testo").to_csv(photos / name, index=False)
    options = ("--table", "b.csv", "--image-column", "foto", "--caption-column", "testo", "--encoders", "scratch")
    assert cots("init", photos, *options)[0] == 0
    source = Params.load().source.model_dump()
    keys = ("table", "image_column", "caption_column")
    assert [source[key] for key in keys] == ["b.csv", "foto", "testo"]


def test_a_table_without_captions_is_told(cots: Cots, photos: Path) -> None:
    frame().drop(columns="caption").to_csv(photos / "t.csv", index=False)
    lines = lines_of(cots("init", photos, "--encoders", "scratch")[1])
    assert "no column looks like captions: name it with --caption-column" in lines["captions"]
    assert lines["kept"] == "columns album, as metadata of the samples"


def a_folder(tmp_path: Path, files: dict[str, bytes | str]) -> Path:
    folder = tmp_path / "wrong"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, (), "no images and no videos that can be read, and no caption table: no files; name another folder"),
        ({"a.heic": "-", "b.heic": "-", "c.md": "-"}, (), "no caption table: 2 .heic, 1 .md; name another folder"),
        ({"0001.tar": "-"}, (), "is in another layout: run `cots init webdataset --data "),
        ({"a.csv": "image,caption\n", "b.tsv": "file\ttext\n"}, (),
         "holds 2 tables: a.csv (columns image, caption); b.tsv (columns file, text); choose one with --table"),
        ({"a.csv": "foto,testo\nx.jpg,y\n"}, (),
         "has the columns 'foto', 'testo': name those with paths and captions with --image-column and"),
        ({"a.csv": "image,caption\nx.jpg,y\n"}, ("--image-column", "foto"),
         "has the columns 'image', 'caption', and none called foto: name another with --image-column"),
        ({"a.csv": "image,caption\nx.jpg,y\n"}, ("--caption-column", "testo"),
         "and none called testo: name another with --caption-column"),
        ({"a.csv": "image,caption\nx.jpg,y\n", "b.jpg": "-"}, (),
         "a.csv names 1 files in column image, the first 'x.jpg', and none of them is below"),
        ({"a.csv": "image,caption\nx.jpg,y\n", "b.jpg": "-"}, (), "the first image there is 'b.jpg'; choose another"),
        ({"a.csv": "image,caption\n"}, (), "has no rows below its header"),
        ({"a.csv": "image,caption\nx.jpg,y\n"}, ("--table", "c.csv"), "c.csv: the tables in"),
        ({"a.jpg": "-"}, ("--caption-column", "text"), "holds no caption table (.csv, .tsv, .jsonl, .parquet)"),
        ({"a.jpg": "-"}, ("--data", "."), "is the data: leave --data out"),
        ({"a.jpg": "-"}, ("--encoders", "dinov3"), "no encoders 'dinov3'"),
        ({"a.csv": "image,caption\nx.jpg,y\n"}, ("--table", "."), "no table "),
        ({"a.csv": "image,caption\nx.jpg,y\n"}, ("--table", "a**"), "--table a**: "),
        ({"a.jpg": "-", "\udcff.txt": "-"}, (), r"holds '\udcff.txt', whose name is not UTF-8: DVC cannot read it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line_with_what_to_do(
    cots: Cots, tmp_path: Path, project: Path, files: dict[str, str], options: tuple[str, ...], message: str
) -> None:
    code, out, err = cots("init", a_folder(tmp_path, {**files}), *options)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (project / "params.yaml").exists()


def test_what_dvc_cannot_read_is_told_before_it_waits_for_ever(cots: Cots, photos: Path) -> None:
    (photos / "sub").mkdir()
    (photos / "sub/loop").symlink_to("..")  # DVC follows links to files alone
    (photos / "link.jpg").symlink_to(NAMES[0])
    (photos / ".git").mkdir()
    os.mkfifo(photos / ".git/pipe")
    assert cots("init", photos, "--encoders", "scratch")[0] == 0
    os.mkfifo(photos / "sub/pipe.jpg")
    (photos / "gone.jpg").symlink_to("gone.jpg")
    for command in ("init", "index"):
        code, _, err = cots(command, photos)
        assert code == 2
        assert f"{photos} holds 'gone.jpg', a link that leads nowhere (and 1 more): DVC cannot read it" in err
    (photos / "gone.jpg").unlink()
    assert "holds 'sub/pipe.jpg', a pipe, a socket or a device: DVC cannot read it" in cots("init", photos)[2]


@pytest.mark.parametrize("name", ["data", "data/shards/x", "index", "changes", "models/mine"])
def test_images_do_not_lie_where_the_pipeline_writes(cots: Cots, photos: Path, project: Path, name: str) -> None:
    folder = project / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(photos, folder)
    for arguments in ((folder, "--encoders", "scratch"), ("flickr8k", "--data", name)):
        code, _, err = cots("init", *arguments)
        assert code == 2
        assert "is where the pipeline writes its results: keep the images in another folder" in err
    assert not (project / "params.yaml").exists()
    beside = shutil.copytree(folder, project / "data/pictures")
    assert cots("init", beside, "--encoders", "scratch")[0] == 0


def test_a_table_may_have_brackets_in_its_name_and_captions_may_be_blank(cots: Cots, photos: Path) -> None:
    frame().assign(caption=" ").to_csv(photos / "captions [v2].csv", index=False)
    lines = lines_of(cots("init", photos, "--encoders", "scratch", "--table", "captions [v2].csv")[1])
    assert lines["found"].endswith("; captions [v2].csv, images in column image")
    assert lines["captions"] == "none; 40 without are searched, not trained or measured on"


def test_a_project_does_not_lie_among_its_images(cots: Cots, photos: Path) -> None:
    with chdir(photos):
        assert "run `cots init` in a folder of its own" in cots("init", ".")[2]


def test_options_for_a_table_go_with_a_folder(cots: Cots, photos: Path) -> None:
    assert "go with a folder" in cots("init", "folder", "--data", photos, "--table", "a.csv")[2]


def test_a_second_look_replaces_the_first_but_no_edits(cots: Cots, photos: Path, project: Path) -> None:
    assert cots("init", photos, "--encoders", "scratch")[0] == 0
    assert cots("init", photos, "--encoders", "clip-b32")[0] == 0
    assert not (project / "params.yaml.bak").exists()
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("steps: 10 ", "steps: 11 "))
    code, _, err = cots("init", photos)
    assert (code, "--force" in err) == (2, True)
    assert cots("init", photos, "--force")[0] == 0
    assert "steps: 11 " in (project / "params.yaml.bak").read_text()


# --- the project that an installed package lays out


def test_the_pipeline_of_a_project_is_that_of_the_checkout_but_for_code() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    ours, theirs = (yaml.safe_load(pipeline)["stages"] for pipeline in (text, drop_code_deps(text)))
    version = theirs.pop("version")
    assert (version["always_changed"], version["outs"]) == (True, [{str(VERSION): {"cache": False}}])
    for stage in ours.values():
        body: dict[str, Any] = stage.get("do", stage)
        body["deps"] = [str(VERSION), *(dep for dep in body["deps"] if not dep.startswith("cots/"))]
    assert theirs == ours


def test_the_wheel_carries_what_a_project_is_written_from() -> None:
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {name: f"cots/project/{name}" for name in ("presets", "dvc.yaml")}


@pytest.mark.slow
def test_in_an_empty_folder_a_project_is_laid_out_that_dvc_runs(
    cots: Cots, photos: Path, tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", fork_python)
    FORMS["metadata.jsonl"][0](photos)
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / ".gitignore").write_text("/notes/\n/data/\n")
    with chdir(folder):
        code, out, err = cots("init", "../photos", "--encoders", "scratch")
        assert (code, err) == (0, "")
        lines = lines_of(out)
        assert lines["git"].startswith("`git init`")
        assert lines["dvc"].startswith("`dvc init`")
        assert (folder / ".gitignore").read_text().startswith("/notes/\n/data/\n/changes/\n/models/\n")
        assert "analytics = false" in (folder / ".dvc/config").read_text()
        reproduce("prepare")
        status_command = [fork_python, "-m", "dvc", "status", "--json"]
        process = subprocess.run(status_command, capture_output=True, text=True, check=True)
        status = json.loads(process.stdout)
        assert status.pop("version") == ["always changed"]
        assert "prepare" not in status
        assert len(read_manifest(folder / "data/manifest.parquet")) == 40
        assert VERSION.read_text().startswith("cots ")
        VERSION.write_text("cots 0.1.0\n")
        process = subprocess.run(status_command, capture_output=True, text=True, check=True)
        assert json.loads(process.stdout)["prepare"] == [{"changed deps": {str(VERSION): "modified"}}]
        assert not {"git", "dvc", "project"} & lines_of(cots("init", "../photos", "--encoders", "scratch")[1]).keys()


def test_names_in_a_folder_command_neither_the_terminal_nor_the_parameters(cots: Cots, photos: Path) -> None:
    odd = photos.rename(photos.parent / "odd\nsource: \x1b[31m")
    frame().rename(columns={"album": "\x1b[2J"}).to_csv(odd / "captions.csv", index=False)
    code, out, err = cots("init", odd, "--encoders", "scratch")
    assert (code, err) == (0, "")
    assert lines_of(out)["kept"] == r"columns \u001b[2J, as metadata of the samples"
    assert "\x1b" not in out + Path("params.yaml").read_text()
    assert Params.load().source.model_dump()["path"] == odd


def test_a_folder_whose_name_is_not_utf8_is_refused(cots: Cots, photos: Path) -> None:
    code, out, err = cots("init", photos.rename(photos.parent / "\udcff"), "--encoders", "scratch")
    assert (code, out, Path("params.yaml").exists()) == (2, "", False)
    assert err.startswith("error: params.yaml is UTF-8, and the name ")


def test_a_table_is_named_relative_to_the_folder(cots: Cots, photos: Path) -> None:
    frame().to_csv(photos / "captions.csv", index=False)
    _, _, err = cots("init", photos, "--encoders", "scratch", "--table", photos / "captions.csv")
    assert err == f"error: --table {photos / 'captions.csv'}: give its path relative to {photos}\n"
    with pytest.raises(ValidationError, match="relative to the folder"):
        FolderSourceConfig(path=photos, table=str(photos / "*.csv"))


def test_labels_are_taken_from_a_column_or_from_folders(photos: Path, tmp_path: Path, cots: Cots) -> None:
    frame(caption="title").to_csv(photos / "t.csv", index=False)
    lines = lines_of(cots("init", photos, "--label-column", "title", "--encoders", "scratch")[1])
    assert lines["labels"] == "40 in title; captions from them, for training: cots data describe"
    source = Params.load().source
    assert isinstance(source, FolderSourceConfig)
    assert (source.label_column, source.caption_column) == ("title", None)
    for options in (("--label-column", "image"), ("--label-column", "title", "--caption-column", "title")):
        code, _, err = cots("init", photos, *options, "--image-column", "image")
        assert code == 2
        assert "is another column already" in err
    assert "none called klass: name another with --label-column" in cots("init", photos, "--label-column", "klass")[2]

    (photos / "t.csv").unlink()
    for number, name in enumerate(NAMES):
        folder = tmp_path / "net" / ("train" if number % 4 else "val") / ("dog" if number % 2 else "cat")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(photos / name, folder)
    lines = lines_of(cots("init", tmp_path / "net", "--label-column", "kind", "--encoders", "scratch")[1])
    assert lines["labels"].startswith("2 in kind;")
    assert lines["splits"] == "train 30, val 10, test 0 images (as the table says)"
