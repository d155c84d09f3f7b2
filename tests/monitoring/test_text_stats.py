"""Vocabulary of a text encoder, statistics of texts, bounds on a table, earlier versions of a file."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from cots.data.dvc_history import find_input, past_versions
from cots.data.quality.expectations import Bound, check_bounds
from cots.data.wordpiece import train_tokenizer
from cots.monitoring.text_stats import Vocabulary, split_words, text_stats

CAPTIONS = ["A red star", "two blue rings, touching"]


def vocabulary() -> Vocabulary:
    return Vocabulary(train_tokenizer(CAPTIONS, vocab_size=100), CAPTIONS)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("a RED star!", 0), ("a red dog", 1 / 3), ("dog dog star", 2 / 3), ("...", 0), ("", 0), ("Стар", 1)],
)
def test_words_that_are_not_in_the_training_captions_are_out_of_vocabulary(text: str, rate: float) -> None:
    assert vocabulary().oov_rate(text) == pytest.approx(rate)


def test_words_that_the_tokenizer_does_not_know_are_out_of_vocabulary() -> None:
    tokenizer = train_tokenizer(["a star"], vocab_size=50)
    assert Vocabulary(tokenizer, ["a star", "quick"]).oov_rate("a quick star") == pytest.approx(1 / 3)


def test_statistics_are_words_characters_and_blanks() -> None:
    table = text_stats(["a red star", "  ", "rings, rings"], vocabulary())
    assert table["words"].tolist() == [3, 0, 2]
    assert table["characters"].tolist() == [10, 2, 12]
    assert table["blank"].tolist() == [0, 1, 0]
    assert split_words("It's 3 rings") == ["it", "s", "3", "rings"]


def test_bounds_apply_to_rows_or_their_mean_and_name_the_exceptions() -> None:
    table = pd.DataFrame({"words": [1, 2, 3, 40], "unknown": [0.0, 0.0, 0.0, 1.0]})
    bounds = [
        Bound(title="most are short", column="words", low=1, high=9, share=0.75),
        Bound(title="all are short", column="words", low=1, high=9, share=1),
        Bound(title="few are unknown", column="unknown", low=0, high=0.25, share=None),
        Bound(title="hardly any is unknown", column="unknown", low=0, high=0.2, share=None),
    ]
    results = check_bounds(table, bounds)
    assert [result.expectation for result in results] == [bound.title for bound in bounds]
    assert [result.success for result in results] == [True, False, True, False]
    assert results[1].observed == "1 of 4 fail, such as 40"
    assert results[1].limit == "1 to 9 for at least 100%"
    assert results[3].observed == "0.25 on average"


@pytest.mark.slow
def test_earlier_versions_of_a_file_are_found_in_the_run_cache(
    tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(past_versions(Path("data/table"))) == []
    stage = (
        "stages:\n  make:\n    cmd: mkdir -p data && cp source data/table\n    deps: [source]\n    outs: [data/table]\n"
        "  read:\n    cmd: mkdir -p report && cp data/table report/x\n    deps: [data/table]\n    outs: [report]\n"
    )
    Path("dvc.yaml").write_text(stage)
    dvc = [fork_python, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    for content in ("one", "two"):
        Path("source").write_text(content)
        subprocess.run([*dvc, "repro", "-q"], check=True)
    assert sorted(path.read_text() for path in past_versions(Path("data/table"))) == ["one", "two"]
    assert list(past_versions(Path("data/tab"))) == []
    table, report = Path("data/table"), Path("report/x")
    assert find_input(report, table) == table
    Path("source").write_text("three")
    subprocess.run([*dvc, "repro", "-q", "make"], check=True)
    read = find_input(report, table)
    assert read
    assert read.read_text() == "two"
    read.unlink()
    assert find_input(report, table) is None
    assert find_input(Path("elsewhere/x"), table) == table
