"""The list of suspects: which pairs are in it, and what `validate` reads of it."""

from pathlib import Path

import pandas as pd
import pytest

from cots.data.quality.suspects import find_suspects, read_suspects, select_present, write_suspects
from cots.data.verdicts import pair_key
from cots.errors import BadInput

MANIFEST = pd.DataFrame({"id": ["a", "b"], "captions": [["a cat", "a dog"], ['a, quoted "red" bus']]})
PAIRS = pd.DataFrame(
    {
        "id": ["a", "a", "b"],
        "caption": [0, 1, 0],
        "score": [0.5, -0.2, -0.3],
        "seen": [4, 4, 3],
        "dropped": [1, 2, 3],
    }
)


def test_pairs_dropped_in_half_of_their_steps_are_suspects_lowest_score_first() -> None:
    suspects = find_suspects(PAIRS, MANIFEST)
    assert list(suspects["text"]) == ['a, quoted "red" bus', "a dog"]
    assert find_suspects(PAIRS.assign(dropped=0), MANIFEST).empty


def test_the_list_is_read_as_it_was_written_and_ids_of_digits_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "suspects.csv"
    write_suspects(path, find_suspects(PAIRS.assign(id=["007", "007", "8"]), MANIFEST.assign(id=["007", "8"])))
    assert read_suspects(path).to_dict("list") == {"id": ["8", "007"], "caption": [0, 1]}
    write_suspects(path, find_suspects(PAIRS.assign(dropped=0), MANIFEST))
    assert read_suspects(path).empty


def test_pairs_that_people_judged_are_left_out_wherever_the_list_is_made_or_read(tmp_path: Path) -> None:
    odd = 'a "dog",\r\n=and\ta cat'
    manifest = pd.DataFrame({"id": ["a", "b"], "captions": [["a cat", odd], ["-a bus"]]})
    judged = {pair_key("a", odd), pair_key("b", "a cat")}
    assert list(find_suspects(PAIRS, manifest, judged)["text"]) == ["-a bus"]
    path = tmp_path / "suspects.csv"
    write_suspects(path, find_suspects(PAIRS, manifest))
    assert read_suspects(path, judged).to_dict("list") == {"id": ["b"], "caption": [0]}
    assert read_suspects(path, judged | {pair_key("b", "-a bus")}).empty


def test_a_carriage_return_in_a_text_begins_no_row(tmp_path: Path) -> None:
    path = tmp_path / "suspects.csv"
    write_suspects(
        path, find_suspects(PAIRS, pd.DataFrame({"id": ["a", "b"], "captions": [["a cat", "a\rdog"], ["\ra bus"]]}))
    )
    assert read_suspects(path).to_dict("list") == {"id": ["b", "a"], "caption": [0, 1]}
    assert read_suspects(path, {pair_key("a", "a\rdog"), pair_key("b", "\ra bus")}).empty


def test_pairs_of_captions_and_samples_that_have_gone_are_left_out_and_the_others_keep_their_text() -> None:
    suspects = find_suspects(PAIRS, MANIFEST)
    assert select_present(suspects, MANIFEST).equals(suspects)
    current = pd.DataFrame({"id": ["a"], "captions": [["a dog", "a dog"]]})
    rows = select_present(suspects, current)
    assert rows[["id", "caption", "text"]].to_numpy().tolist() == [["a", 0, "a dog"]]
    assert select_present(suspects.iloc[:0], current).empty


def test_a_list_that_a_spreadsheet_saved_keeps_ids_that_look_like_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "suspects.csv"
    path.write_text("\ufeffid,caption,text\r\nNA,1,a\r\nnull,0,b\r\n0012,2,c\r\n", newline="")
    assert read_suspects(path).to_dict("list") == {"id": ["NA", "null", "0012"], "caption": [1, 0, 2]}


@pytest.mark.parametrize("text", ["", "image,words\n1,2\n", "id,caption\na,first\n"])
def test_a_file_that_is_not_a_list_of_suspects_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "suspects.csv").write_text(text)
    with pytest.raises(BadInput, match="cots suspects"):
        read_suspects(tmp_path / "suspects.csv")
