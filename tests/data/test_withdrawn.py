from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cots.data.withdrawn import add_withdrawn, read_withdrawn
from cots.errors import BadInput

ROOT = Path(__file__).parents[2]


@pytest.fixture
def withdrawn_csv(tmp_path: Path) -> Path:
    path = tmp_path / "withdrawn.csv"
    path.write_bytes((ROOT / "withdrawn.csv").read_bytes())
    return path


def test_the_projects_own_list_is_empty() -> None:
    assert read_withdrawn(ROOT / "withdrawn.csv") == {}


def test_samples_are_read_as_they_were_added_whatever_their_texts(withdrawn_csv: Path) -> None:
    reasons = {"007": 'an "odd", reason', "a/b\n.jpg": "NA", "ünï": "x", "Icon\r": "a\rb", "\r=1": "'=1"}
    add_withdrawn(withdrawn_csv, reasons)
    assert read_withdrawn(withdrawn_csv) == reasons


def test_a_list_that_a_spreadsheet_saved_is_read_as_it_was(withdrawn_csv: Path) -> None:
    withdrawn_csv.write_text('\ufeffid,when,reason\r\n0012.jpg,2026-01-01,"owner, asked"\r\nNA,,x\r\n', newline="")
    assert read_withdrawn(withdrawn_csv) == {"0012.jpg": "owner, asked", "NA": "x"}


def test_samples_that_are_added_at_the_same_time_are_all_listed(withdrawn_csv: Path) -> None:
    ids = [str(number) for number in range(16)]
    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(lambda sample: add_withdrawn(withdrawn_csv, {sample: "x"}), ids))
    assert sorted(read_withdrawn(withdrawn_csv)) == sorted(ids)


def test_adding_again_keeps_the_first_reason(withdrawn_csv: Path) -> None:
    add_withdrawn(withdrawn_csv, {"a": "first"})
    before = withdrawn_csv.read_bytes()
    add_withdrawn(withdrawn_csv, {"a": "second"})
    assert withdrawn_csv.read_bytes() == before


@pytest.mark.parametrize("content", ["", "id;when;reason\n", "id,reason\na,b\n"])
def test_a_file_that_is_not_such_a_list_is_refused_and_left_unchanged(withdrawn_csv: Path, content: str) -> None:
    withdrawn_csv.write_text(content)
    with pytest.raises(BadInput, match="is not a list of withdrawn samples"):
        add_withdrawn(withdrawn_csv, {"a": "b"})
    assert withdrawn_csv.read_text() == content
