"""The list of verdicts: durable, in an order of its own, and read whatever became of it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cots.data.verdicts import pair_key, read_verdicts, select_rejected, set_verdict
from cots.errors import BadInput

ROOT = Path(__file__).parents[2]


@pytest.fixture
def verdicts_csv(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.csv"


def test_the_projects_own_list_and_a_missing_one_are_empty(verdicts_csv: Path) -> None:
    assert read_verdicts(ROOT / "verdicts.csv") == read_verdicts(verdicts_csv) == {}


def test_verdicts_are_read_as_they_were_given_and_can_be_changed_and_taken_back(verdicts_csv: Path) -> None:
    cat, formula, digits = pair_key("a.jpg", "a cat"), pair_key("=1+1", 'an "odd",\r\ntext'), pair_key("007", "NA")
    icon = pair_key("Icon\r", "a carriage return, as macOS names the icon of a folder")
    set_verdict(verdicts_csv, cat, "accepted")
    set_verdict(verdicts_csv, formula, "rejected")
    set_verdict(verdicts_csv, digits, "rejected")
    set_verdict(verdicts_csv, icon, "accepted")
    assert read_verdicts(verdicts_csv) == {cat: "accepted", formula: "rejected", digits: "rejected", icon: "accepted"}
    assert select_rejected(read_verdicts(verdicts_csv)) == {formula, digits}
    set_verdict(verdicts_csv, cat, "rejected")
    set_verdict(verdicts_csv, digits, None)
    assert read_verdicts(verdicts_csv) == {cat: "rejected", formula: "rejected", icon: "accepted"}


def test_the_order_of_the_lines_does_not_depend_on_who_judged_first(tmp_path: Path) -> None:
    pairs = [pair_key(name, text) for name in ("b", "a") for text in ("x", "y")]
    lists = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for pair in pairs:
        set_verdict(lists[0], pair, "accepted")
    for pair in reversed(pairs):
        set_verdict(lists[1], pair, "accepted")
    first, second = ([line.rpartition(",")[0] for line in path.read_text().splitlines()] for path in lists)
    assert first == second
    assert first[1:] == sorted(first[1:])


def test_of_two_verdicts_that_a_merge_left_the_later_one_holds(verdicts_csv: Path) -> None:
    sample, digest = pair_key("a", "x")
    later, earlier = (f"{sample},{digest},{verdict}" for verdict in ("rejected", "accepted"))
    verdicts_csv.write_text(
        f"id,caption_digest,verdict,when\n{later},2026-02-01T00:00:00+00:00\n{earlier},2026-01-01T00:00:00+00:00\n"
    )
    assert read_verdicts(verdicts_csv) == {(sample, digest): "rejected"}


def test_verdicts_that_are_given_at_the_same_time_are_all_listed(verdicts_csv: Path) -> None:
    pairs = [pair_key(str(number), "x") for number in range(8)]
    with ThreadPoolExecutor(len(pairs)) as pool:
        list(pool.map(lambda pair: set_verdict(verdicts_csv, pair, "accepted"), pairs))
    assert set(read_verdicts(verdicts_csv)) == set(pairs)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "id;verdict\n",
        "id,caption_digest,verdict,when\na,b,maybe,2026\n",
        "id,caption_digest,verdict,when\n<<<<<<< HEAD\na,b,accepted,2026\n",
    ],
)
def test_a_file_that_is_not_such_a_list_is_refused_and_left_unchanged(verdicts_csv: Path, content: str) -> None:
    verdicts_csv.write_text(content)
    with pytest.raises(BadInput, match="is not a list of verdicts") as refused:
        set_verdict(verdicts_csv, pair_key("a", "x"), "accepted")
    assert "\n" not in str(refused.value)
    assert verdicts_csv.read_text() == content
