"""The list of distrusted pairs: which enter it, and what `validate` reads back."""

from pathlib import Path

import pandas as pd
import pytest

from cots.data.quality.suspects import read_suspects, suspects, write_suspects
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


def test_pairs_dropped_in_half_of_their_steps_are_suspects_the_worst_first() -> None:
    found = suspects(PAIRS, MANIFEST)
    assert list(found["text"]) == ['a, quoted "red" bus', "a dog"]
    assert suspects(PAIRS.assign(dropped=0), MANIFEST).empty


def test_the_list_survives_its_file_and_numbers_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "suspects.csv"
    write_suspects(path, suspects(PAIRS.assign(id=["007", "007", "8"]), MANIFEST.assign(id=["007", "8"])))
    assert read_suspects(path).to_dict("list") == {"id": ["8", "007"], "caption": [0, 1]}
    write_suspects(path, suspects(PAIRS.assign(dropped=0), MANIFEST))
    assert read_suspects(path).empty


@pytest.mark.parametrize("text", ["", "picture,words\n1,2\n", "id,caption\na,first\n"])
def test_what_is_no_list_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "suspects.csv").write_text(text)
    with pytest.raises(BadInput, match="cots suspects"):
        read_suspects(tmp_path / "suspects.csv")
