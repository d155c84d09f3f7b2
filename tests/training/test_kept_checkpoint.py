"""Checkpoints of a run whose shards are kept in a store: an object each, and a record in the project's folder."""

import shutil
from pathlib import Path

import pytest
import torch

from cots.cli.doctor import CHECKS
from cots.data.bucket import parse_location
from cots.data.store import LIST, find_part, keep_folder, list_store, start_list
from cots.data.store_upkeep import find_unlisted
from cots.errors import BadInput, RunFailed, machine_refusal
from cots.training import checkpoint
from tests.buckets import remove_object, write_object
from tests.training.conftest import killed_at, run, tiny_params

CHECKPOINT = checkpoint.path_of("pretrain")
RECORD = CHECKPOINT.with_name("pretrain.pt.object")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def step_of(state: dict[str, object] | None) -> object:
    assert state
    return state["step"]


def save(step: int) -> None:
    checkpoint.save(CHECKPOINT, {"step": step, "weight": torch.full((9,), step)}, fingerprint="f")


def lying() -> Path:
    kept = find_part(CHECKPOINT)
    assert kept
    return kept.file


@pytest.fixture
def shards(anywhere: Path) -> Path:
    """A shard folder in a store, which checkpoints follow."""
    start_list(Path("data/shards"), anywhere)
    checkpoint.follow_shards(Path("data/shards"))
    return Path("data/shards")


def test_the_last_checkpoint_is_the_only_one_in_the_store(shards: Path, anywhere: Path) -> None:
    for step in (1, 2, 3):
        save(step)
        assert sorted(path.name for path in checkpoint.FOLDER.iterdir()) == [LIST, RECORD.name]
        assert len(list_store(anywhere)) == 1
        assert step_of(checkpoint.load(CHECKPOINT, fingerprint="f")) == step
    assert checkpoint.load(CHECKPOINT, fingerprint="other") is None
    checkpoint.follow_shards(shards)  # as a run does that resumes
    assert step_of(checkpoint.load(CHECKPOINT, fingerprint="f")) == 3
    assert find_unlisted(anywhere, [Path()], days=0).objects == {}
    save(3)  # the same bytes
    assert len(list_store(anywhere)) == 1
    checkpoint.remove("pretrain")
    assert [path.name for path in checkpoint.FOLDER.iterdir()] == [LIST]
    assert not list_store(anywhere)
    assert checkpoint.load(CHECKPOINT, fingerprint="f") is None
    checkpoint.remove("pretrain")


def test_a_lost_or_changed_checkpoint_is_named_by_the_run_and_by_doctor(shards: Path) -> None:
    remedy = f"remove {RECORD} and run its stage, which then writes it again"
    save(1)
    write_object(lying(), b"changed")
    with pytest.raises(BadInput) as refused:
        checkpoint.load(CHECKPOINT, fingerprint="f")
    assert str(refused.value) == f"{lying()}, which holds {CHECKPOINT}, was changed: remove it and {remedy}"
    remove_object(lying())
    with pytest.raises(BadInput) as refused:
        checkpoint.load(CHECKPOINT, fingerprint="f")
    assert str(refused.value) == f"{lying()}, which holds {CHECKPOINT}, is missing: {remedy}"
    with pytest.raises(RunFailed) as broken:
        CHECKS["store"]()
    assert str(broken.value) == f"{refused.value} (all: `cots data check`)"
    RECORD.unlink()
    assert checkpoint.load(CHECKPOINT, fingerprint="f") is None


@pytest.mark.slow
def test_what_could_not_be_put_into_a_store_that_is_away_is_gone_on_from(
    bucket_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_list(checkpoint.FOLDER, bucket_folder)
    save(1)
    client = pytest.importorskip("s3fs").S3FileSystem
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        client.clear_instance_cache()
        away.setattr(client, "retries", 1)
        with pytest.raises(Exception, match="Could not connect to the endpoint URL") as refused:
            save(2)
    client.clear_instance_cache()
    told = machine_refusal(refused.value)
    assert told
    assert told.endswith("check the network and AWS_ENDPOINT_URL, and run it again")
    assert step_of(checkpoint.load(CHECKPOINT, fingerprint="f")) == 2
    save(3)
    assert len(list_store(bucket_folder)) == 1
    assert step_of(checkpoint.load(CHECKPOINT, fingerprint="f")) == 3


def test_a_checkpoint_of_another_store_is_not_gone_on_from(shards: Path) -> None:
    save(1)
    start_list(shards, parse_location("elsewhere"))
    checkpoint.follow_shards(shards)
    assert checkpoint.load(CHECKPOINT, fingerprint="f") is None
    start_list(shards, None)
    checkpoint.follow_shards(shards)
    assert not list(checkpoint.FOLDER.iterdir())


@pytest.mark.slow
def test_a_killed_run_goes_on_from_the_store_to_the_same_weights(
    tiny_data: Path, tokenized: Path, tmp_path: Path, bucket_folder: Path
) -> None:
    usual = run(tiny_data, tokenized, tmp_path / "usual", tiny_params()) / "model/model.safetensors"
    data = shutil.copytree(tiny_data, tmp_path / "data")
    keep_folder(data / "shards", bucket_folder, stage="prepare")
    objects = len(list_store(bucket_folder))
    with killed_at(3):
        run(data, tokenized, tmp_path / "killed", tiny_params())
    assert not CHECKPOINT.exists()
    assert step_of(torch.load(lying().open("rb"), weights_only=True)["state"]) == 2
    resumed = run(data, tokenized, tmp_path / "resumed", tiny_params()) / "model/model.safetensors"
    assert resumed.read_bytes() == usual.read_bytes()
    assert len(list_store(bucket_folder)) == objects
