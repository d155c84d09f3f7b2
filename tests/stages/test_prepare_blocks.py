"""However many processes prepare a source, and whatever interrupted them, the bytes are those of a plain loop."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cots.config.stages.prepare import PrepareParams
from cots.data.changes import Change, add_changes, last_number, read_changes
from cots.data.ingest.ingestor import IngestedSample, Ingestor, Rejected, ingest
from cots.data.manifest import LAST_CHANGE, REJECTED_SCHEMA, SCHEMA, write_table
from cots.data.store import read_list
from cots.data.withdrawn import add_withdrawn, read_withdrawn
from cots.digests import bytes_digest
from cots.errors import RunFailed
from cots.stages.prepare import stage
from tests.buckets import upload, write_object
from tests.kill_points import contents
from tests.stored import apply_changes, store

ROOT = Path(__file__).parents[2]
PART_SIZE = 3
Encoded = Callable[..., bytes]
HOLDOUT = {"val": 0.3, "test": 0.2}


def karpathy_json(names: list[str]) -> str:
    entries = [
        {"filename": name, "split": "train", "sentences": [{"raw": f"{n}: {name}"}]} for n, name in enumerate(names)
    ]
    entries[0]["split"] = "val"
    return json.dumps({"images": entries})


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, BytesIO(data))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_image: Encoded, make_video: Encoded) -> Path:
    """Sources of every kind that is cut in another way, with lists of withdrawn and changed samples."""
    place = tmp_path_factory.mktemp("blocks")
    images = [make_image(40 + n, 32, seed=n) for n in range(9)]

    folder = place / "folder"
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number}.jpg").write_bytes(image)
    (folder / "1.jpg").write_bytes(b"no picture")
    rows = [f"{number}.jpg,picture {number}" for number in range(9) if number != 4]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *rows, "4.jpg, "]))

    karpathy = place / "karpathy"
    shutil.copytree(folder, karpathy)
    (karpathy / "captions.csv").unlink()
    # two ids in several blocks, of which the first of 1.jpg is unusable; a block of absent pictures alone
    names = ["1.jpg", "0.jpg", "2.jpg", "x.jpg", "y.jpg", "z.jpg", "0.jpg", "1.jpg", "3.jpg", "0.jpg", "5.jpg"]
    (karpathy / "dataset_x.json").write_text(karpathy_json(names))

    tars = place / "tars"
    tars.mkdir()
    for number in range(3):
        tar(
            tars / f"{number}.tar",
            {f"{key}.{end}": data for key in "abc" for end, data in (("jpg", images[number]), ("txt", key.encode()))}
            | {"d.txt": b"alone"},
        )

    msrvtt = place / "msrvtt"
    (msrvtt / "videos").mkdir(parents=True)
    for number in range(4):
        (msrvtt / f"videos/{number}.mp4").write_bytes(make_video(2 + number) if number else b"cut short")
    videos = [{"video_id": f"{number}", "split": "train"} for number in range(4)]
    sentences = [{"video_id": f"{number}", "caption": f"video {number}"} for number in range(4)]
    (msrvtt / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))

    shutil.copy(ROOT / "withdrawn.csv", place)
    add_withdrawn(place / "withdrawn.csv", {"2.jpg": "its owner asked", "0/b": "likewise"})
    (place / "changes.jsonl").write_text("\n")
    digest = bytes_digest(images[8])
    changes = [Change(id="new", image=digest, captions=("new",)), Change(id="1.jpg", image=digest), Change(id="gone")]
    add_changes(place / "changes.jsonl", [*changes, Change(id="0.jpg", captions=("other",))], {digest: images[8]})
    return place


SCENES = {"images": {"train": 5, "val": 1, "test": 0}, "videos": {"train": 2, "val": 0, "test": 0}, "caption_noise": 0}
SOURCES: dict[str, dict[str, Any]] = {
    "folder": {"kind": "folder", "holdout": HOLDOUT},
    "unlisted": {"kind": "folder", "holdout": HOLDOUT, "caption_column": None},
    "karpathy": {"kind": "karpathy"},
    "tars": {"kind": "webdataset", "holdout": HOLDOUT},
    "msrvtt": {"kind": "msrvtt"},
    "scenes": {"kind": "scenes", "path": str(ROOT / "cots/data/scenes.yaml"), "size": 32} | SCENES,
}
FOLDERS = {"unlisted": "folder"}


def values_of(name: str, place: Path, **prepare: object) -> dict[str, Any]:
    path = {"path": str(place / FOLDERS.get(name, name))}
    limits = {"size": 32, "max_frames": 2, "max_rejected": 1.0, "samples_per_shard": 2, "max_pixels": 1_000_000}
    return {"source": path | SOURCES[name], "prepare": limits | prepare}


def paths_in(out: Path, place: Path) -> list[Path]:
    written = [out / "shards", out / "manifest.parquet", out / "rejected.parquet"]
    return [place / "withdrawn.csv", *written, ROOT / "verdicts.csv", place / "changes.jsonl"]


def prepare_plainly(out: Path, place: Path, values: dict[str, Any]) -> None:
    """The slow reference."""
    params = PrepareParams.model_validate(values)
    withdrawn, shards, manifest, rejected, _, changes = paths_in(out, place)
    limits, path = params.prepare.dump_limits(), params.source.path
    samples = apply_changes(params.source.read(), changes)
    outcomes = list(ingest(samples, Ingestor(root=path, withdrawn=read_withdrawn(withdrawn), **limits)))
    usable = [outcome for outcome in outcomes if isinstance(outcome, IngestedSample)]
    unusable = [asdict(outcome) for outcome in outcomes if isinstance(outcome, Rejected)]
    rows = store(usable, shards, samples_per_shard=params.prepare.samples_per_shard)
    number = str(last_number(read_changes(changes)))
    write_table(manifest, rows, SCHEMA.with_metadata({LAST_CHANGE: number}))
    write_table(rejected, unusable, REJECTED_SCHEMA)


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, dict[str, str]]:
    """Digests of the files of every source."""
    for name in SOURCES:
        (place / "plain" / name).mkdir(parents=True)
        prepare_plainly(place / "plain" / name, place, values_of(name, place))
    return {name: contents(place / "plain" / name) for name in SOURCES}


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("parts", "scenes.source"):
        monkeypatch.setattr(f"cots.data.sources.{module}.PART_SIZE", PART_SIZE)


def prepared(out: Path, place: Path, values: dict[str, Any]) -> dict[str, str]:
    params = PrepareParams.model_validate(values)
    stage(params.source.path, *paths_in(out, place), params=params)
    return contents(out)


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("name", SOURCES)
def test_blocks_change_no_byte(name: str, tmp_path: Path, place: Path, expected: dict[str, dict[str, str]]) -> None:
    assert len(expected[name]) > 3
    assert prepared(tmp_path, place, values_of(name, place)) == expected[name]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_change_no_byte(
    processes: int, tmp_path: Path, place: Path, expected: dict[str, dict[str, str]], fork_python: str
) -> None:
    """Of some sources there are fewer parts than processes."""
    kept = tmp_path / "kept"
    jobs = [(values_of(name, place), paths_in(tmp_path / name, place)) for name in SOURCES]
    jobs.append((values_of("tars", place, store=str(tmp_path / "store")), paths_in(kept, place)))
    (tmp_path / "jobs.json").write_text(json.dumps([[values, list(map(str, paths))] for values, paths in jobs]))
    command = [fork_python, "-m", "cots.launch", "tests.stages.prepare_worker", str(tmp_path / "jobs.json")]
    environment = os.environ | {"COTS_PROCESSES": str(processes), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(PART_SIZE)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in SOURCES:
        assert contents(tmp_path / name) == expected[name], name
    listed = read_list(kept / "shards")
    assert listed
    assert {f"shards/{name}": part.sha256 for name, part in listed.parts.items()} == {
        name: digest for name, digest in expected["tars"].items() if name.startswith("shards/")
    }
    assert {path.name for path in kept.iterdir()} == {"shards", "manifest.parquet", "rejected.parquet"}


# A run that ends with too many rejects leaves all of its blocks.


def interrupted(out: Path, place: Path, name: str) -> None:
    with pytest.raises(RunFailed, match="more than prepare.max_rejected"):
        prepared(out, place, values_of(name, place, max_rejected=0.0))
    assert not (out / "manifest.parquet").exists()


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """A copy of the sources and lists, to be changed; times and inodes of the files are new."""
    for name in ("folder", "tars", "changes"):
        shutil.copytree(place / name, tmp_path / "own" / name)
    for name in ("withdrawn.csv", "changes.jsonl"):
        shutil.copy(place / name, tmp_path / "own")
    return tmp_path / "own"


def replace_in_place(path: Path) -> None:
    """Write other content of the same length, and restore the time of writing."""
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(bytes(len(data)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link_from_elsewhere(path: Path) -> None:
    elsewhere = path.parents[1] / path.name
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def change_a_caption(path: Path) -> None:
    """Change one byte in place, and restore the time of writing."""
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data[::-1].replace(b"b", b"x", 1)[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(path: Path) -> None:
    """Give a tar the name of another one, and the other way round."""
    other = path.with_name("0.tar")
    path.rename(path.with_name("x"))
    other.rename(path)
    path.with_name("x").rename(other)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


MENDED: dict[str, tuple[str, Callable[[Path], object], int]] = {  # what is done to which file, and samples opened again
    "nothing": ("folder/0.jpg", lambda _: None, 0),
    "replaced": ("folder/0.jpg", replace_in_place, 3),
    "removed": ("folder/3.jpg", Path.unlink, 3),
    "linked": ("folder/8.jpg", link_from_elsewhere, 3),
    "another caption": ("folder/captions.csv", lambda path: path.write_text(path.read_text().replace("e 7", "e")), 3),
    "withdrawn": ("withdrawn.csv", lambda path: add_withdrawn(path, {"7.jpg": "asked"}), 9),
    "changed": ("changes.jsonl", lambda path: add_changes(path, [Change(id="8.jpg", captions=())], {}), 9),
    "image of a change": ("changes", lambda path: next(path.iterdir()).touch(), 9),
    "frames cut short": ("../out/prepare.partial/000001.frames", cut, 3),
    "rows cut short": ("../out/prepare.partial/000001.jsonl", cut, 0),
    "half of the rows": ("../out/prepare.partial/000001.jsonl", halve, 3),
}  # fmt: skip


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("case", MENDED)
def test_only_blocks_of_what_is_still_the_same_are_reused(
    case: str, tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "out", own, "folder")
    file, change, opened = MENDED[case]
    change(own / file)
    capsys.readouterr()
    done = prepared(tmp_path / "out", own, values_of("folder", own))
    told = f"prepare: {opened} of 9 samples in" if opened < 9 else "prepare: 9 samples in"
    assert told in capsys.readouterr().err
    (tmp_path / "plain").mkdir()
    prepare_plainly(tmp_path / "plain", own, values_of("folder", own))
    assert done == contents(tmp_path / "plain")


@pytest.mark.parametrize(("change", "opened"), [(Path.stat, 0), (change_a_caption, 4), (exchange, 8)])
def test_a_tar_is_read_again_if_it_is_another_one(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], object], opened: int
) -> None:
    interrupted(tmp_path / "out", own, "tars")
    change(own / "tars/2.tar")
    capsys.readouterr()
    done = prepared(tmp_path / "out", own, values_of("tars", own))
    assert f"prepare: {opened} of 12 samples" in capsys.readouterr().err
    (tmp_path / "plain").mkdir()
    prepare_plainly(tmp_path / "plain", own, values_of("tars", own))
    assert done == contents(tmp_path / "plain")


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("changed", [{"size": 24}, {"max_frames": 1}, {"max_caption_chars": 4}])
def test_blocks_of_other_parameters_are_not_reused(
    changed: dict[str, int], tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "out", own, "folder")
    capsys.readouterr()
    done = prepared(tmp_path / "out", own, values_of("folder", own, **changed))
    assert "prepare: 9 samples in" in capsys.readouterr().err
    (tmp_path / "plain").mkdir()
    prepare_plainly(tmp_path / "plain", own, values_of("folder", own, **changed))
    assert done == contents(tmp_path / "plain")


def test_what_a_busy_machine_rejected_is_opened_again(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = values_of("msrvtt", place, max_rejected=0.0, max_seconds=1e-9)
    for _ in range(2):
        with pytest.raises(RunFailed, match="too slow 3"):
            prepared(tmp_path, place, values)
        assert "prepare: 4 samples in" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("_small_parts")
def test_a_picture_of_a_bucket_is_fetched_again_if_it_was_replaced(
    tmp_path: Path, own: Path, bucket_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(own / "folder", bucket_folder)
    values = values_of("folder", own, max_rejected=0.0, store=str(bucket_folder.parent / "store"))
    values["source"]["path"] = str(bucket_folder)
    with pytest.raises(RunFailed, match="more than prepare.max_rejected"):
        prepared(tmp_path / "out", own, values)
    replace_in_place(own / "folder/0.jpg")
    write_object(bucket_folder / "0.jpg", (own / "folder/0.jpg").read_bytes())
    capsys.readouterr()
    values["prepare"]["max_rejected"] = 1.0
    done = prepared(tmp_path / "out", own, values)
    assert "prepare: 3 of 9 samples in" in capsys.readouterr().err
    (tmp_path / "plain").mkdir()
    prepare_plainly(tmp_path / "plain", own, values_of("folder", own))
    expected, listed = contents(tmp_path / "plain"), read_list(tmp_path / "out/shards")
    assert listed
    assert done["manifest.parquet"] == expected.pop("manifest.parquet")
    assert done["rejected.parquet"] == expected.pop("rejected.parquet")
    assert {f"shards/{name}": part.sha256 for name, part in listed.parts.items()} == expected
