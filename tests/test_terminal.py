"""Text from data reaches terminals, Markdown and spreadsheets as text."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cots.cli.registry import format_result
from cots.cli.tables import table
from cots.data.quality.suspects import SUSPECT_COLUMNS, read_suspects, write_suspects
from cots.data.text_csv import escape_formula, unescape_formula
from cots.data.withdrawn import add_withdrawn, read_withdrawn
from cots.errors import BadInput, exit_on_error
from cots.markdown import escape_markdown
from cots.registry.registry import PublishResult
from cots.terminal import escape_controls, escape_controls_in_lines
from tests.conftest import Cots

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07 a dog"  # writes to the clipboard
FORMULA = '=HYPERLINK("http://example.org")'


def test_a_table_shows_escape_sequences_instead_of_sending_them() -> None:
    lines = table(["id", "caption"], [["a\x9b2J\nb", CLIPBOARD]]).splitlines()
    assert len(lines) == 2
    assert lines[1] == r"a\u009b2J\u000ab  \u001b]52;c;cm0gLXJmIH4=\u0007 a dog"


def test_an_error_shows_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_error():
        raise BadInput(f"cannot read {CLIPBOARD}")
    assert capsys.readouterr().err == "error: cannot read \\u001b]52;c;cm0gLXJmIH4=\\u0007 a dog\n"


@pytest.mark.usefixtures("store")
def test_ids_of_samples_in_a_sentence_show_them_too(cots: Cots) -> None:
    result = PublishResult(1, True, False, f"it contains withdrawn samples: {CLIPBOARD}", {})
    for line in (format_result(result), cots("data", "lineage", CLIPBOARD)[1]):
        assert r"\u001b]52;c;cm0gLXJmIH4=\u0007 a dog" in line
        assert "\x1b" not in line


@pytest.mark.parametrize("text", ["chien à l'eau", "犬", "می‌خواهم", "👨‍👩‍👧", "a \\ b"])
def test_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert escape_controls(text) == text


def test_json_stays_the_same_json() -> None:
    values = {"caption": CLIPBOARD + "\x9b \u202e \udc80 é"}
    printed = escape_controls_in_lines(json.dumps(values, ensure_ascii=False, indent=2))
    assert json.loads(printed) == values
    assert printed.isascii() is False
    assert printed.splitlines()[0] == "{"
    printed.encode()


def test_markdown_shows_links_tags_and_ends_of_cells_as_text() -> None:
    assert escape_markdown("![x](http://a) <img>\n| `b`") == r"!\[x\](http://a) \<img\> \| \`b\`"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\ta", "'=1", "''", "a=b", "", "a dog's"])
def test_a_cell_never_begins_like_a_formula_and_is_read_back(text: str) -> None:
    assert not escape_formula(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unescape_formula(escape_formula(text)) == text


def test_the_lists_that_people_open_hold_no_formulas(tmp_path: Path) -> None:
    row = dict.fromkeys(SUSPECT_COLUMNS, 0) | {"id": FORMULA, "caption": 3, "text": FORMULA}
    write_suspects(tmp_path / "suspects.csv", pd.DataFrame([row], columns=SUSPECT_COLUMNS))
    (tmp_path / "withdrawn.csv").write_text("id,when,reason\n")
    add_withdrawn(tmp_path / "withdrawn.csv", {FORMULA: FORMULA})
    for name in ("suspects.csv", "withdrawn.csv"):
        cells = pd.read_csv(tmp_path / name, dtype=str).to_numpy().ravel()
        assert not any(cell.startswith("=") for cell in cells)
    assert read_suspects(tmp_path / "suspects.csv").to_dict("records") == [{"id": FORMULA, "caption": 3}]
    assert read_withdrawn(tmp_path / "withdrawn.csv") == {FORMULA: FORMULA}
