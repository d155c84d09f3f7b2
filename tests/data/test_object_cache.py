import os
import time
from pathlib import Path

import pytest

from cots.data import object_cache
from cots.data.object_cache import MAX_AGE_DAYS, SECONDS_PER_DAY, local_part
from cots.data.store import LIST, find_part, keep_folder, store_of
from cots.errors import BadInput
from tests.buckets import remove_object, write_object


def keep(folder: Path, store: Path | None) -> Path:
    """A folder of a model whose weights are kept in a store."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "model.json").write_bytes(b"{}")
    keep_folder(folder, store, stage="pretrain")
    return folder / "model.safetensors"


def object_of(part: Path) -> Path:
    kept = find_part(part)
    assert kept
    return kept.file


def test_without_a_store_a_folder_stays_as_it_is(tmp_path: Path) -> None:
    part = keep(tmp_path / "model", store_of(tmp_path))
    assert sorted(path.name for path in part.parent.iterdir()) == ["model.json", "model.safetensors"]
    assert local_part(part) == part
    assert local_part(tmp_path / "absent") == tmp_path / "absent"


def test_of_a_kept_folder_large_files_become_objects_that_are_opened_where_they_lie(tmp_path: Path) -> None:
    part = keep(tmp_path / "model", tmp_path / "store")
    assert sorted(path.name for path in part.parent.iterdir()) == ["model.json", LIST]
    assert local_part(part) == object_of(part)
    assert local_part(part).read_bytes() == b"weights"
    assert local_part(part.parent / "model.json") == part.parent / "model.json"
    for damage, told in ((b"WEIGHTS", "was changed: remove it and"), (None, "is missing:")):
        remove_object(object_of(part)) if damage is None else write_object(object_of(part), damage)
        with pytest.raises(BadInput) as error:
            local_part(part)
        assert str(error.value) == (f"{object_of(part)}, which holds {part}, {told} run `dvc repro --force pretrain`")


@pytest.mark.slow
def test_an_object_of_a_bucket_is_fetched_once_and_compared_each_time(tmp_path: Path, bucket_folder: Path) -> None:
    part = keep(tmp_path / "model", bucket_folder)
    write_object(object_of(part), b"WEIGHTS")
    with pytest.raises(BadInput, match=r"was changed: remove it and run `dvc repro --force pretrain`"):
        local_part(part)
    assert not list(object_cache.folder().iterdir())  # nothing that could be taken for the object
    write_object(object_of(part), b"weights")
    copy = local_part(part)
    assert copy.parent == object_cache.folder()
    remove_object(object_of(part))
    assert local_part(part).read_bytes() == b"weights"
    copy.write_bytes(b"damaged")
    with pytest.raises(BadInput, match=r"which holds .*model.safetensors, is missing: run"):
        local_part(part)
    write_object(object_of(part), b"weights")
    assert local_part(part).read_bytes() == b"weights"


@pytest.mark.slow
def test_copies_that_nobody_opens_any_more_are_removed(tmp_path: Path, bucket_folder: Path) -> None:
    copies = {age: object_cache.folder() / age for age in ("old", "new")}
    object_cache.folder().mkdir(parents=True)
    for age, copy in copies.items():
        copy.touch()
        seconds = time.time() - (MAX_AGE_DAYS + (0.1 if age == "old" else -0.1)) * SECONDS_PER_DAY
        os.utime(copy, (seconds, seconds))
    fetched = local_part(keep(tmp_path / "model", bucket_folder))
    assert sorted(object_cache.folder().iterdir()) == sorted([copies["new"], fetched])
    os.utime(fetched, (0, 0))
    assert time.time() - local_part(tmp_path / "model/model.safetensors").stat().st_mtime < SECONDS_PER_DAY
