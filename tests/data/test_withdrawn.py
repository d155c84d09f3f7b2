from pathlib import Path

import pytest

from cots.data.withdrawn import add_withdrawn, read_withdrawn
from cots.errors import BadInput

ROOT = Path(__file__).parents[2]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "withdrawn.csv"
    path.write_bytes((ROOT / "withdrawn.csv").read_bytes())
    return path


def test_the_list_of_the_project_is_empty() -> None:
    assert read_withdrawn(ROOT / "withdrawn.csv") == {}


def test_what_is_added_is_read_whatever_it_holds(listed: Path) -> None:
    reasons = {"007": 'an "odd", reason', "a/b\n.jpg": "NA", "ünï": "x"}
    add_withdrawn(listed, reasons)
    assert read_withdrawn(listed) == reasons


def test_adding_again_keeps_the_first_reason(listed: Path) -> None:
    add_withdrawn(listed, {"a": "first"})
    before = listed.read_bytes()
    add_withdrawn(listed, {"a": "second"})
    assert listed.read_bytes() == before


@pytest.mark.parametrize("content", ["", "id;when;reason\n", "id,reason\na,b\n"])
def test_a_file_of_another_make_is_refused_and_left_alone(listed: Path, content: str) -> None:
    listed.write_text(content)
    with pytest.raises(BadInput, match="no list of withdrawn samples"):
        add_withdrawn(listed, {"a": "b"})
    assert listed.read_text() == content
