"""Samples that requests have added and changed: the list, and what `prepare` makes of it."""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cots.config.params import Params
from cots.data.changes import Change, add_changes, find_unused_images, images_folder, read_changes
from cots.data.manifest import read_last_change
from cots.data.samples import Sample
from cots.data.verdicts import pair_key, set_verdict
from cots.errors import BadInput
from cots.stages.prepare import stage
from tests.conftest import Encoded
from tests.stored import apply_changes

ROOT = Path(__file__).parents[2]
A, B = b"one file", b"another file"
IMAGES = {hashlib.sha256(content).hexdigest(): content for content in (A, B)}
DIGESTS = list(IMAGES)
NEW = [Change(id="é\n.png", image=DIGESTS[0], captions=("a dog\u2028",)), Change(id="b", image=DIGESTS[1])]


@pytest.fixture
def changes(tmp_path: Path) -> Path:
    path = tmp_path / "changes.jsonl"
    path.write_bytes((ROOT / "changes.jsonl").read_bytes())
    return path


def applied(samples: list[Sample], path: Path) -> list[Sample]:
    return apply_changes(samples, path)


def sample(name: str, **fields: object) -> Sample:
    plain = Sample(
        id=name,
        split="test",
        media="image",
        captions=("before", "too"),
        is_mismatched=(True, False),
        content=Path(name),
        origin=name,
        metadata={"year": 2024},
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def test_what_is_not_given_stays_as_it_was(changes: Path) -> None:
    changes.write_bytes(b"\r\n")  # as git may check it out
    assert read_changes(changes) == {}
    assert add_changes(changes, NEW, IMAGES) == 1
    assert list(read_changes(changes).values()) == [replace(change, number=1) for change in NEW]
    assert add_changes(changes, [Change(id="b", captions=()), Change(id="c", metadata={"year": 1})], {}) == 2
    listed = read_changes(changes)
    assert listed["b"] == Change(id="b", image=DIGESTS[1], captions=(), number=2)
    assert listed["c"] == Change(id="c", metadata={"year": 1}, number=2)
    assert listed["é\n.png"].number == 1
    assert {file.name: file.read_bytes() for file in (changes.parent / "changes").iterdir()} == IMAGES


def test_a_source_is_read_as_it_was_changed(changes: Path) -> None:
    source = [sample("a.png"), sample("b"), sample("c.png")]
    assert applied(source, changes) == source
    captions = Change(id="a.png", captions=("after",), metadata={})
    add_changes(changes, [*NEW, captions, Change(id="gone.png", captions=("lost",))], IMAGES)
    first, second, third, added, gone = applied(source, changes)
    assert first == sample("a.png", captions=("after",), is_mismatched=(False,), metadata={})
    assert second == sample("b", content=B, origin=f"changes/{DIGESTS[1]}")
    assert third == source[2]
    assert (added.id, added.split, added.content, added.captions, added.fault) == (
        "é\n.png", "train", A, ("a dog\u2028",), None,
    )  # fmt: skip
    assert gone.fault
    assert gone.fault.detail == "requests changed it, and the source lacks it"


def test_a_stored_image_that_is_missing_or_other_is_a_fault_of_its_sample(changes: Path) -> None:
    add_changes(changes, NEW, IMAGES)
    (changes.parent / "changes" / DIGESTS[0]).write_bytes(b"other")
    (changes.parent / "changes" / DIGESTS[1]).unlink()
    damaged, missing = applied([], changes)
    assert [faulty.fault and faulty.fault.reason for faulty in (damaged, missing)] == ["damaged", "no such file"]
    add_changes(changes, NEW, IMAGES)
    assert [mended.content for mended in applied([], changes)] == [A, B]


def test_without_the_folder_of_images_nothing_is_applied(changes: Path) -> None:
    add_changes(changes, NEW, IMAGES)
    shutil.rmtree(images_folder(changes))
    with pytest.raises(BadInput, match=r"changes\.jsonl names images in .*changes, which is missing"):
        applied([sample("a.png")], changes)
    changes.write_text('{"id": "a.png", "number": 1, "captions": ["after"]}\n')
    assert applied([sample("a.png")], changes)[0].captions == ("after",)


def test_requests_at_the_same_time_are_all_stored_under_numbers_of_their_own(changes: Path) -> None:
    def add(number: int) -> int:
        return add_changes(changes, [Change(id=str(number), image=DIGESTS[0])], {DIGESTS[0]: A})

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(add, range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert {int(name): change.number for name, change in read_changes(changes).items()} == dict(enumerate(numbers))


def test_a_request_that_is_killed_is_stored_whole_or_not_at_all(
    changes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Before each step on the disk the folder is copied: that is what a process leaves that is killed there."""
    add_changes(changes, [Change(id="b", image=DIGESTS[0])], {DIGESTS[0]: A})
    copies = tmp_path_factory.mktemp("killed")

    def announced(step: Callable[..., Any]) -> Callable[..., Any]:
        def copy_and_go_on(*arguments: Any, **options: Any) -> Any:
            shutil.copytree(tmp_path, copies / str(len(list(copies.iterdir()))))
            return step(*arguments, **options)

        return copy_and_go_on

    before = read_changes(changes)
    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, announced(getattr(os, name)))
        add_changes(changes, NEW, IMAGES)
    after, folders = read_changes(changes), sorted(copies.iterdir(), key=lambda folder: int(folder.name))
    states = [read_changes(folder / "changes.jsonl") for folder in folders]
    assert len(states) > 5
    assert states[0] == before
    assert states[-1] == after
    assert all(state in (before, after) for state in states)
    for folder in folders:
        assert all(stored.fault is None for stored in applied([], folder / "changes.jsonl"))
        assert add_changes(folder / "changes.jsonl", NEW, IMAGES) in (2, 3)  # whoever repeats it completes it


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"id": "a"}',
        '{"id": "a", "number": "x"}',
        '{"id": 1, "number": 1}',
        '{"id": "a", "number": 1, "image": 3}',
        '{"id": "a", "number": 1, "captions": "a dog"}',
        '{"id": "a", "number": 1, "captions": [null]}',
        '{"id": "a", "number": 1, "metadata": [1]}',
        "\xff",
    ],
)
def test_a_file_that_is_no_such_list_is_refused_and_left_unchanged(changes: Path, content: str) -> None:
    changes.write_text(content, encoding="latin-1")
    with pytest.raises(BadInput, match=r"changes\.jsonl is not a list of changed samples \(line 1: ") as refused:
        add_changes(changes, NEW, IMAGES)
    assert "\n" not in str(refused.value)
    assert changes.read_text(encoding="latin-1") == content


def test_prepare_stores_what_was_added_and_leaves_out_what_was_withdrawn_or_rejected(
    changes: Path, tmp_path: Path, make_image: Encoded
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(make_image(kind="PNG"))
    content = {hashlib.sha256(data).hexdigest(): data for data in (make_image(seed=1), make_image(seed=2), b"broken")}
    named = [Change(id=f"{number}.jpg", image=digest) for number, digest in enumerate(content)]
    add_changes(changes, [*named, Change(id="a.png", captions=("a dog", "a cat"), metadata={"year": 2024})], content)
    withdrawn = tmp_path / "withdrawn.csv"
    withdrawn.write_text("id,when,reason\n1.jpg,2026-01-01,its owner asked\n")
    verdicts = tmp_path / "verdicts.csv"
    for pair in (("a.png", "a cat"), ("1.jpg", "a dog")):  # of a caption that a request gave, of a withdrawn sample
        set_verdict(verdicts, pair_key(*pair), "rejected")
    raw = Params.load(ROOT / "params.yaml").dump_all()
    raw["source"] = {"kind": "folder", "path": str(source)}
    raw["prepare"]["max_rejected"] = 0.5
    tables = (tmp_path / "manifest.parquet", tmp_path / "rejected.parquet")
    stage(source, withdrawn, tmp_path / "shards", *tables, verdicts, changes, params=Params.model_validate(raw))
    manifest, rejected = (pd.read_parquet(table).set_index("id") for table in tables)
    assert read_last_change(tables[0]) == 1
    assert set(manifest.index) == {"a.png", "0.jpg"}
    assert manifest["captions"].map(list).to_dict() == {"a.png": ["a dog"], "0.jpg": []}
    assert manifest.at["a.png", "metadata"] == '{"year": 2024}'
    assert manifest.at["0.jpg", "split"] == "gallery"
    assert manifest.at["0.jpg", "origin"] == f"changes/{next(iter(content))}"
    assert rejected["reason"].to_dict() == {"1.jpg": "withdrawn", "2.jpg": "not a picture"}


def test_images_to_delete_are_those_of_withdrawn_samples_and_replaced_ones(changes: Path) -> None:
    assert find_unused_images(changes, ["a"]) == find_unused_images(changes.with_name("none"), ["a"]) == []
    shared, own = (Change(id=name, image=digest) for name, digest in zip(("a", "c"), DIGESTS, strict=True))
    add_changes(changes, [shared, replace(shared, id="b"), own, Change(id="d", captions=("text",))], IMAGES)
    first, second = (images_folder(changes) / digest for digest in DIGESTS)
    assert find_unused_images(changes, ["a", "d", "unknown"]) == []
    assert find_unused_images(changes, ["a", "c", "d"]) == [second]
    assert find_unused_images(changes, ["a", "b"]) == [first]
    add_changes(changes, [replace(shared, id="c")], IMAGES)  # in place of the image that it had
    assert find_unused_images(changes, []) == [second]
