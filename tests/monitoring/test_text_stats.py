"""Words that a text stream knows, texts as a table, bounds on a table, earlier versions of a file."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from cots.data.dvc_history import past_versions
from cots.data.quality.expectations import Bound, check_bounds
from cots.data.wordpiece import train_tokenizer
from cots.monitoring.text_stats import Vocabulary, text_stats, words_of

CAPTIONS = ["A red star", "two blue rings, touching"]


def vocabulary() -> Vocabulary:
    return Vocabulary(train_tokenizer(CAPTIONS, vocab_size=100), CAPTIONS)


@pytest.mark.parametrize(
    ("text", "share"),
    [("a RED star!", 0), ("a red dog", 1 / 3), ("dog dog star", 2 / 3), ("...", 0), ("", 0), ("Стар", 1)],
)
def test_a_word_is_unknown_where_training_never_said_it(text: str, share: float) -> None:
    assert vocabulary().unknown(text) == pytest.approx(share)


def test_a_word_is_unknown_where_the_tokenizer_has_no_piece_of_it() -> None:
    tokenizer = train_tokenizer(["a star"], vocab_size=50)
    assert Vocabulary(tokenizer, ["a star", "quick"]).unknown("a quick star") == pytest.approx(1 / 3)


def test_a_text_is_its_words_characters_and_blanks() -> None:
    table = text_stats(["a red star", "  ", "rings, rings"], vocabulary())
    assert table["words"].tolist() == [3, 0, 2]
    assert table["characters"].tolist() == [10, 2, 12]
    assert table["blank"].tolist() == [0, 1, 0]
    assert words_of("It's 3 rings") == ["it", "s", "3", "rings"]


def test_bounds_hold_rows_or_their_mean_and_tell_what_is_against_them() -> None:
    table = pd.DataFrame({"words": [1, 2, 3, 40], "unknown": [0.0, 0.0, 0.0, 1.0]})
    bounds = [
        Bound(title="most are short", column="words", low=1, high=9, share=0.75),
        Bound(title="all are short", column="words", low=1, high=9, share=1),
        Bound(title="few are unknown", column="unknown", low=0, high=0.25, share=None),
        Bound(title="hardly any is unknown", column="unknown", low=0, high=0.2, share=None),
    ]
    verdicts = check_bounds(table, bounds)
    assert [verdict.expectation for verdict in verdicts] == [bound.title for bound in bounds]
    assert [verdict.success for verdict in verdicts] == [True, False, True, False]
    assert verdicts[1].observed == "1 of 4 fail, such as 40"
    assert verdicts[1].limit == "1 to 9 for at least 100%"
    assert verdicts[3].observed == "0.25 on average"


@pytest.mark.slow
def test_earlier_versions_of_a_file_are_found_in_the_cache_of_runs(
    tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(past_versions(Path("data/table"))) == []
    stage = (
        "stages:\n  make:\n    cmd: mkdir -p data && cp source data/table\n    deps: [source]\n    outs: [data/table]\n"
    )
    Path("dvc.yaml").write_text(stage)
    dvc = [fork_python, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    for content in ("one", "two"):
        Path("source").write_text(content)
        subprocess.run([*dvc, "repro", "-q"], check=True)
    assert sorted(path.read_text() for path in past_versions(Path("data/table"))) == ["one", "two"]
    assert list(past_versions(Path("data/tab"))) == []
