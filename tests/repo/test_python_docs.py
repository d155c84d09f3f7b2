"""The examples of docs/python.md run, one after another."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import tracked_in

DOCS = Path(__file__).parents[2] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf8"), flags=re.DOTALL)


def test_the_examples_run(
    tmp_path: Path,
    tiny_model: Path,
    store_of_one_version: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dog.jpg", "cat.png"):
        Image.new("RGB", (40, 30), "brown").save(name)
    Path("notes.txt").write_text("no picture")
    shutil.copytree(tiny_model, "openai/clip-vit-base-patch32")
    names: dict[str, object] = {}
    with tracked_in(store_of_one_version):
        for block in BLOCKS:
            exec(block, names)
    printed = capsys.readouterr().out
    assert "image 1 (notes.txt) cannot be used: not a picture" in printed
    assert printed.splitlines()[1].startswith("1 ")
    assert getattr(names["again"], "digest", "") == getattr(names["model"], "digest", None)
    assert len(BLOCKS) == 4
