"""What DVC does not see: objects of the store that vanish, change, or are no longer named by a list."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cots.cli.doctor import CHECKS
from cots.data.store import LIST, finish_list, keep_part, list_store, object_path, part_digest, start_list
from cots.data.store_upkeep import find_unlisted, remove_unlisted
from cots.errors import BadInput, RunFailed
from tests.buckets import remove_object, upload, write_object
from tests.conftest import Cots

ROOT = Path(__file__).parents[2]
PIPELINE = """stages:
  prepare:
    cmd: python -m cots.stages.prepare withdrawn.csv data/shards data/manifest.parquet data/rejected.parquet
    deps: [source]
    params: [source, prepare]
    outs: [data/shards, data/manifest.parquet, data/rejected.parquet]
  store:
    cmd: cots data check
    deps: [data/shards]
    always_changed: true
"""
PARAMS = """source: {kind: folder, path: source, holdout: {val: 0, test: 0}}
prepare: {size: 32, samples_per_shard: 1, store: store}
"""


def write_part(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    keep_part(path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two parts in a store."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    start_list(Path("data/shards"), Path("store"))
    for name in ("a", "b"):
        write_part(Path("data/shards/train", name), name.encode() * 9)
    finish_list(Path("data/shards"))
    return tmp_path


def lying(part: str) -> Path:
    return object_path(Path("store"), part_digest(Path(part)).hex())


def test_damaged_objects_are_named_with_what_to_do(project: Path, cots: Cots) -> None:
    assert cots("data", "check") == (0, "2 objects in store are as the lists say\n", "")
    first, second = lying("data/shards/train/a"), lying("data/shards/train/b")
    first.unlink()
    second.write_bytes(b"short")
    code, out, err = cots("data", "check")
    advice = "run `dvc repro --force prepare`"
    assert out.splitlines() == [
        f"{first}, which holds data/shards/train/a, is missing: {advice}",
        f"{second}, which holds data/shards/train/b, has 5 bytes instead of 9: {advice}",
    ]
    assert (code, err) == (1, f"error: 2 parts of the data are damaged: {out.splitlines()[0]}\n")
    with pytest.raises(RunFailed) as broken:
        CHECKS["store"]()
    assert str(broken.value) == f"{out.splitlines()[0]} (all: `cots data check`)"
    first.write_bytes(b"a" * 9)
    second.write_bytes(b"c" * 9)
    assert CHECKS["store"]() == "2 objects in store"  # sizes are right
    code, out, _ = cots("data", "check", "--digests")
    assert (code, out) == (1, f"{second}, which holds data/shards/train/b, was changed: remove it and {advice}\n")


@pytest.mark.slow
def test_a_bucket_is_compared_and_swept_as_a_folder_is(
    tmp_path: Path, bucket_folder: Path, monkeypatch: pytest.MonkeyPatch, cots: Cots
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS.replace("store: store", f'store: "{bucket_folder}"'))
    shards = Path("data/shards")
    for names in ("ab", "bc"):
        start_list(shards, bucket_folder)
        for name in names:
            write_part(shards / name, name.encode())
        finish_list(shards)
    write_object(bucket_folder / "notes.txt", b"not an object")
    assert cots("data", "check") == (0, f"2 objects in {bucket_folder} are as the lists say\n", "")
    assert find_unlisted(bucket_folder, [tmp_path], days=1).objects == {}
    code, out, _ = cots("data", "sweep", "--days", "0", "--remove")
    assert (code, out.partition(" (")[0]) == (0, f"1 of 3 objects in {bucket_folder}")
    assert "notes.txt" in list_store(bucket_folder)
    assert len(list_store(bucket_folder)) == 3
    gone = object_path(bucket_folder, part_digest(shards / "b").hex())
    remove_object(gone)
    code, out, _ = cots("data", "check")
    assert (code, out) == (1, f"{gone}, which holds data/shards/b, is missing: run `dvc repro --force prepare`\n")


def test_nothing_is_swept_that_a_list_a_record_or_another_project_needs(project: Path, tmp_path: Path) -> None:
    write_part(Path("data/shards/train/c"), b"of a stage that is running")
    start_list(Path("other/data/tokens"), Path("store"))
    write_part(Path("other/data/tokens/d"), b"of another project")
    finish_list(Path("other/data/tokens"))
    found = find_unlisted(Path("store"), [Path()], days=0)
    assert (list(found.objects.values()), found.total) == ([len(b"of another project")], 4)
    assert find_unlisted(Path("store"), [Path(), Path("other")], days=0).objects == {}
    Path("data/shards", LIST).unlink()
    Path("data/shards/train/c.object").unlink()
    with pytest.raises(BadInput, match="no list here names an object of store: run it in the project's folder"):
        find_unlisted(Path("store"), [Path()], days=0)
    remove_unlisted(found)
    assert len(list_store(Path("store"))) == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dvc_repro_notices_a_lost_object_and_gc_lets_the_sweep_remove_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_image: Callable[..., bytes], fork_python: str, cots: Cots
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", fork_python)
    environment = os.environ | {"PATH": f"{Path(fork_python).parent}:{os.environ['PATH']}"}

    def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [fork_python, "-m", "dvc", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    Path("source").mkdir()
    for seed in range(2):
        Path(f"source/{seed}.jpg").write_bytes(make_image(seed=seed))
    Path("withdrawn.csv").write_text((ROOT / "withdrawn.csv").read_text())
    Path("params.yaml").write_text(PARAMS)
    Path("dvc.yaml").write_text(PIPELINE)
    assert dvc("init", "--no-scm", "-q").returncode == 0
    done = dvc("repro")
    assert done.returncode == 0, done.stderr
    listed = Path("data/shards", LIST).read_bytes()
    lost = lying("data/shards/gallery/image-00001.tar")
    lost.unlink()
    done = dvc("repro")
    assert done.returncode
    assert f"{lost}, which holds data/shards/gallery/image-00001.tar, is missing" in done.stderr
    assert dvc("repro", "--force", "prepare").returncode == 0
    assert Path("data/shards", LIST).read_bytes() == listed
    assert cots("data", "check")[0] == 0

    Path("source/1.jpg").unlink()
    assert dvc("repro").returncode == 0
    assert cots("data", "sweep", "--days", "0")[1].startswith("0 of 2 objects in store")  # DVC's cache has the old list
    assert dvc("gc", "--workspace", "--force", "-q").returncode == 0
    assert cots("data", "sweep", "--days", "0")[1] == (
        f"1 of 2 objects in store ({lost.stat().st_size / 1e9:.3g} GB) are named by none of 2 lists; "
        "repeat with --remove to remove them\n"
    )
    assert cots("data", "sweep", "--days", "0", "--remove")[0] == 0
    assert not lost.exists()
    assert cots("data", "check")[0] == 0


@pytest.mark.slow
def test_a_project_is_made_for_data_in_a_bucket(
    tmp_path: Path, bucket_folder: Path, monkeypatch: pytest.MonkeyPatch, cots: Cots
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").touch()  # so that no project is laid out
    absent = cots("init", "webdataset", "--data", f"{bucket_folder}/absent")
    assert absent == (2, "", f"error: no such data: {bucket_folder}/absent\n")
    assert cots("init", "webdataset", "--data", "gs://b/x")[2] == (
        "error: gs://b/x is neither a path nor an address that begins with s3://\n"
    )
    Path("a").mkdir()
    Path("a/0.tar").touch()
    upload(Path("a"), bucket_folder)
    assert cots("init", "webdataset", "--data", str(bucket_folder))[0] == 0
    assert f'path: "{bucket_folder}"' in Path("params.yaml").read_text()
