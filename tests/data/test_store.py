import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cots.data.bucket import parse_location
from cots.data.shards import read_shard
from cots.data.store import (
    LIST,
    StoredObject,
    finish_list,
    has_part,
    keep_part,
    list_store,
    map_part,
    object_path,
    open_part,
    part_digest,
    read_list,
    start_list,
)
from cots.errors import BadInput
from tests.buckets import remove_object, write_object


def write_part(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    keep_part(path)
    return path


def content(part: Path) -> bytes:
    with open_part(part) as file:
        data = file.read()
    assert map_part(part)[:] == data
    return data


def object_of(path: Path, store: Path) -> Path:
    return object_path(store, part_digest(path).hex())


def test_a_folder_without_a_store_holds_its_parts_and_nothing_else(tmp_path: Path) -> None:
    start_list(tmp_path, None)
    part = write_part(tmp_path / "train/a.tar", b"one")
    finish_list(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [part]
    assert read_list(tmp_path) is None
    assert has_part(part)
    assert content(part) == b"one"
    assert part_digest(part) == hashlib.sha256(b"one").digest()


def test_parts_become_objects_named_by_their_digests_and_a_list(tmp_path: Path, anywhere: Path) -> None:
    folder = tmp_path / "shards"
    start_list(folder, anywhere)
    parts = {name: write_part(folder / name, name[-1:].encode() * 5) for name in ("train/b", "train/a", "val/a")}
    digests = {name: hashlib.sha256(name[-1:].encode() * 5).hexdigest() for name in parts}
    assert all(has_part(part) for part in parts.values())  # before the list names them
    finish_list(folder)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [LIST]
    listed = read_list(folder)
    assert listed is not None
    assert str(listed.store) == str(anywhere)
    assert listed.parts == {name: StoredObject(5, digests[name]) for name in sorted(parts)}
    sizes = {name: stat.st_size for name, stat in list_store(anywhere).items()}
    assert sizes == {f"{digest[:2]}/{digest}": 5 for digest in digests.values()}
    assert {name: content(part) for name, part in parts.items()} == {name: name[-1:].encode() * 5 for name in parts}
    assert not has_part(folder / "train/c")
    with pytest.raises(FileNotFoundError):
        open_part(folder / "train/c")


def test_an_object_that_is_missing_or_changed_is_named_and_written_again(tmp_path: Path, anywhere: Path) -> None:
    folder = tmp_path / "shards"
    start_list(folder, anywhere)
    part = write_part(folder / "train/a.tar", b"right")
    finish_list(folder)
    before, lying = (folder / LIST).read_bytes(), object_of(part, anywhere)
    for damage, told in ((b"wrong", "was changed: remove it and"), (None, "is missing:")):
        remove_object(lying) if damage is None else write_object(lying, damage)
        assert has_part(part) is (damage is not None)  # of the right size
        with pytest.raises(BadInput) as error:
            next(read_shard(part))
        assert str(error.value) == f"{lying}, which holds {part}, {told} run `dvc repro --force prepare`"
        start_list(folder, anywhere)
        write_part(part, b"right")
        finish_list(folder)
        assert (folder / LIST).read_bytes() == before  # so that DVC finds nothing stale
        assert content(part) == b"right"


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_named(tmp_path: Path, bucket_folder: Path) -> None:
    start_list(tmp_path, parse_location("s3://no-such-bucket-here/store"))
    with pytest.raises(
        BadInput, match="cannot write s3://no-such-bucket-here/store/.*: there is no such bucket; create"
    ):
        write_part(tmp_path / "train/a", b"a")
    assert (tmp_path / "train/a").read_bytes() == b"a"


def test_a_killed_writer_leaves_what_is_complete(tmp_path: Path) -> None:
    folder, store = tmp_path / "tokens", tmp_path / "store"
    start_list(folder, store)
    write_part(folder / "train/a", b"a")
    (folder / "train/b").write_bytes(b"b")  # written, but not kept yet
    finish_list(folder)
    write_part(folder / "train/c", b"c")  # kept, but not in the list
    assert [has_part(folder / f"train/{name}") for name in "abcd"] == [True, False, True, False]
    keep_part(folder / "train/b")
    finish_list(folder)
    assert list(read_list(folder).parts) == ["train/a", "train/b", "train/c"]  # type: ignore[union-attr]


def test_a_damaged_list_gives_one_line(tmp_path: Path) -> None:
    for content in (b"", b"PAR1 and no more"):
        (tmp_path / LIST).write_bytes(content)
        with pytest.raises(BadInput, match=rf"{LIST} is not a list of objects \(.*\): restore it by `dvc checkout`"):
            open_part(tmp_path / "train/a")
    start_list(tmp_path, tmp_path / "store")
    pq.write_table(pq.read_table(tmp_path / LIST).replace_schema_metadata(None), tmp_path / LIST)
    with pytest.raises(BadInput, match="is not a list of objects"):
        read_list(tmp_path)
