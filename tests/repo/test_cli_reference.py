"""The written reference of the command line, and the wheel's promises beside it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tools import cli_reference

ROOT = Path(__file__).parents[2]


def test_the_reference_is_what_the_command_line_says() -> None:
    assert cli_reference.PAGE.read_text() == cli_reference.reference()


def test_a_reference_that_fell_behind_fails_the_check_and_is_written_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "cli.md"
    page.write_text(cli_reference.reference().replace("cots search", "cots find"))
    monkeypatch.setattr(cli_reference, "PAGE", page)
    assert cli_reference.main(["--check"]) == 1
    assert "run `python -m tools.cli_reference`" in capsys.readouterr().err
    assert cli_reference.main([]) == 0
    assert cli_reference.main(["--check"]) == 0


def test_the_reference_leaves_out_hidden_names() -> None:
    text = cli_reference.reference()
    assert "--save-grid" in text
    assert "--sheet" not in text
    assert "cots data gather" not in text


def test_one_version_is_said_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    tags = [
        tag
        for path in sorted((ROOT / "infra").rglob("*"))
        if path.is_file()
        for tag in re.findall(r"\bcots(?:-worker|-gpu)?:(\d+\.\d+\.\d+)", path.read_text())
    ]
    assert set(tags) == {version}
