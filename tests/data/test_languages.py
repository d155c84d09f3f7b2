"""Languages of captions: tags, from a table to shards and manifest, and the share of each language in the draws."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from cots.data.changes import Change, add_changes, images_folder
from cots.data.ingest.merge import merge
from cots.data.language_tags import mostly_tags, parse_language, parse_languages
from cots.data.languages import language_weights
from cots.data.samples import Sample
from cots.data.sources.folder import FolderSourceConfig
from cots.errors import BadInput
from tests.conftest import Encoded
from tests.stored import apply_changes

ROWS = [("a.jpg", "a dog", "en"), ("a.jpg", "一只狗", "zh-hans"), ("a.jpg", "?", ""), ("b.jpg", "un chat", "fr_CA")]


def write_rows(folder: Path, rows: list[tuple[str, str, str]], column: str = "language") -> None:
    pd.DataFrame(rows, columns=["image", "caption", column]).to_csv(folder / "captions.csv", index=False)


def read(path: Path, **keys: object) -> list[Sample]:
    return list(FolderSourceConfig.model_validate({"path": path, **keys}).read())


def test_tags_get_their_usual_spelling() -> None:
    tags = {"EN": "en", "pt_br": "pt-BR", "ZH-hans-cn": "zh-Hans-CN", " de ": "de", "": "", "es-419": "es-419"}
    assert {tag: parse_language(tag) for tag in tags} == tags
    for wrong in ("English", "e", "en-", "zh Hans", "nächste"):
        with pytest.raises(ValueError, match="is no BCP 47 tag such as en"):
            parse_language(wrong)


def test_a_cell_holds_one_tag_for_all_captions_or_one_for_each() -> None:
    assert parse_languages("en", num_captions=2) == ("en", "en")
    assert parse_languages(["en", None], num_captions=2) == ("en", "")
    assert parse_languages(float("nan"), num_captions=2) == parse_languages(None, num_captions=1) == ()
    with pytest.raises(ValueError, match="1 languages for 2 captions"):
        parse_languages(["en"], num_captions=2)


def test_captions_of_all_rows_of_an_image_know_their_language(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    first, second = read(tmp_path)
    assert (first.captions, first.languages) == (("a dog", "一只狗", "?"), ("en", "zh-Hans", ""))
    assert (second.languages, second.metadata) == (("fr-CA",), {})
    assert [(sample.languages, sample.metadata) for sample in read(tmp_path, language_column=None)] == [
        ((), {"language": "en"}),
        ((), {"language": "fr_CA"}),
    ]


def test_other_forms_and_names_of_the_column(tmp_path: Path) -> None:
    row = {"image": "a.jpg", "caption": ["a", "b"], "lang": ["en", "de"]}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"image": "b.jpg", "lang": "fr"}))
    assert [sample.languages for sample in read(tmp_path, language_column="lang")] == [("en", "de"), ("fr", "fr")]
    with pytest.raises(BadInput, match="no column tongue; the columns found are 'image', 'caption', 'lang'"):
        read(tmp_path, language_column="tongue")


def test_a_row_of_a_language_that_is_none_is_rejected_by_itself(tmp_path: Path) -> None:
    write_rows(tmp_path, [*ROWS, ("a.jpg", "ein Hund", "German, I think")])
    *usable, unusable = read(tmp_path)
    assert [sample.fault for sample in usable] == [None, None]
    assert unusable.fault
    assert unusable.fault.reason == "not in the layout"
    assert "'German, I think' is no BCP 47 tag" in unusable.fault.detail


def test_a_column_that_is_only_called_language_is_metadata(tmp_path: Path) -> None:
    write_rows(tmp_path, [(image, caption, "English") for image, caption, _ in ROWS])
    samples = read(tmp_path)
    assert [(sample.fault, sample.languages) for sample in samples] == [(None, ())] * len(samples)
    assert {sample.metadata["language"] for sample in samples} == {"English"}


def test_a_column_is_of_languages_if_half_of_its_values_are_tags() -> None:
    assert mostly_tags([["en", None], "zh_Hans", "English", "", float("nan"), "Old Norse"])
    assert not mostly_tags(["en", "English", "German"])
    assert mostly_tags([])


@pytest.fixture
def folder(tmp_path: Path, make_image: Encoded) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b.jpg")):
        (folder / name).write_bytes(make_image(seed=number))
    write_rows(folder, [*ROWS[:2], ("a.jpg", " ", "de"), *ROWS[2:]])
    return folder


def test_merging_and_changes_by_request_keep_the_languages_that_are_known(folder: Path, tmp_path: Path) -> None:
    samples = read(folder)
    merge({"s": (folder, samples)}, tmp_path / "both")
    assert [sample.languages for sample in read(tmp_path / "both")] == [sample.languages for sample in samples]
    changes = tmp_path / "changes.jsonl"
    changes.write_text("\n")
    images_folder(changes).mkdir()
    add_changes(changes, [Change(id="a.jpg", captions=("一只狗", "new"))], {})
    changed, _ = apply_changes(samples, changes)
    assert (changed.captions, changed.languages) == (("一只狗", "new"), ("zh-Hans", ""))


def test_a_temperature_takes_the_shares_of_languages_to_a_power() -> None:
    counts = Counter({"en": 900, "sw": 100})
    for temperature, ratio in ((1.0, 9.0), (2.0, 3.0), (1e9, 1.0), (0.5, 81.0)):
        weights = language_weights(counts, temperature)
        assert counts["en"] * weights["en"] / (counts["sw"] * weights["sw"]) == pytest.approx(ratio)
    assert set(language_weights(counts, 1.0).values()) == {1.0}
    assert language_weights(Counter(), 2.0) == {}
