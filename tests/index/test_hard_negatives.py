"""Hard negatives of an index against a slow search by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cots.data.hard_negatives import read_hard_negatives
from cots.data.manifest import write_table
from cots.errors import BadInput
from cots.index.embedding_index import EmbeddingIndex
from cots.index.hard_negatives import mine_hard_negatives
from cots.index.index_folder import CAPTION_INDEX, CAPTION_SCHEMA, CAPTIONS, ITEM_INDEX, ITEM_SCHEMA, ITEMS
from tests.conftest import Cots

ITEMS_OF_TRAIN, COUNT, MAX_FIT = 25, 4, 0.9


def unit_rows(random: np.random.Generator, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rows = random.normal(size=(count, 6)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of 25 training and 15 test items with two captions each; one caption belongs to two items."""
    random = np.random.default_rng(0)
    items, captions = unit_rows(random, 40), unit_rows(random, 80)
    captions += 1.5 * items[np.repeat(np.arange(40), 2)]
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    splits = ["train" if row < ITEMS_OF_TRAIN else "test" for row in range(40)]
    rows: list[dict[str, object]] = [{"id": f"i{row}", "split": split} for row, split in enumerate(splits)]
    write_table(tmp_path / ITEMS, rows, ITEM_SCHEMA)
    owners = [[row // 2] if row else [0, 7] for row in range(80)]
    texts: list[dict[str, object]] = [
        {"caption": f"c{row}", "items": of_caption} for row, of_caption in enumerate(owners)
    ]
    write_table(tmp_path / CAPTIONS, texts, CAPTION_SCHEMA)
    EmbeddingIndex.build(items, "Flat").save(tmp_path / ITEM_INDEX)
    EmbeddingIndex.build(captions, "Flat").save(tmp_path / CAPTION_INDEX)
    np.savez(tmp_path / "vectors.npz", items=items, captions=captions)
    (tmp_path / "owners.json").write_text(json.dumps(owners))
    return tmp_path


def by_hand(folder: Path, *, max_fit: float = MAX_FIT) -> dict[str, list[str]]:
    vectors, owners = np.load(folder / "vectors.npz"), json.loads((folder / "owners.json").read_text())
    similarity = vectors["captions"] @ vectors["items"].T
    nearest = {}
    for item in range(ITEMS_OF_TRAIN):
        best: dict[int, float] = {}
        for caption, of_caption in enumerate(owners):
            if item not in of_caption:
                continue
            others = [other for other in range(ITEMS_OF_TRAIN) if other not in of_caption]
            others = sorted(others, key=lambda other: -similarity[caption, other])
            for other in others:
                score = similarity[caption, other]
                if score <= max_fit * similarity[caption, item]:
                    best[other] = max(best.get(other, -1), score)
        if best:
            nearest[f"i{item}"] = [f"i{other}" for other in sorted(best, key=lambda other: -best[other])[:COUNT]]
    return nearest


def test_hard_negatives_are_what_a_slow_search_finds(folder: Path) -> None:
    found = mine_hard_negatives(folder, count=ITEMS_OF_TRAIN, max_fit=MAX_FIT)
    nearest = {id_: others[:COUNT] for id_, others in zip(found["id"], found["nearest"], strict=True)}
    assert nearest == by_hand(folder)
    assert len(nearest) > 20


def test_they_are_as_many_as_asked_for_and_never_share_the_caption(folder: Path) -> None:
    found = mine_hard_negatives(folder, count=3, max_fit=2.0).set_index("id")["nearest"]
    assert set(found.map(len)) == {3}
    assert "i7" not in found["i0"] or "i0" not in found["i7"]


def test_an_index_without_training_items_is_refused_in_one_line(folder: Path) -> None:
    pd.read_parquet(folder / ITEMS).assign(split="test").to_parquet(folder / ITEMS)
    with pytest.raises(BadInput, match="no captions of training items: name train in index.splits"):
        mine_hard_negatives(folder, count=3, max_fit=1)
    (folder / CAPTION_INDEX).unlink()
    with pytest.raises(BadInput, match="cannot be used .*: run `dvc repro --force index`"):
        mine_hard_negatives(folder, count=3, max_fit=1)


def test_the_command_writes_a_table_that_training_reads_and_names_it_by_its_content(
    folder: Path, tmp_path: Path, cots: Cots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, err = cots("hard-negatives", "--index", folder, "--count", 3, "--max-fit", 9)
    assert (code, err) == (0, "")
    [path] = tmp_path.glob("data/hard_negatives-*.parquet")
    assert output.splitlines()[-1] == f"train with them: pretrain.hard_negatives.table: {path.relative_to(tmp_path)}"
    manifest = pd.DataFrame({"id": [f"i{row}" for row in range(40)], "key": [f"{100 + row}" for row in range(40)]})
    keys = read_hard_negatives(path, manifest)
    for id_, others in by_hand(folder, max_fit=9).items():
        expected = [100 + int(other[1:]) for other in others][:3]
        assert keys[int(id_[1:])].tolist()[: len(expected)] == expected
    assert (keys[25:] == -1).all()
    cots("hard-negatives", "--index", folder, "--count", 2)
    assert len(list(tmp_path.glob("data/hard_negatives-*.parquet"))) == 2
