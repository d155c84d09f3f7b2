import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cots.files import atomic_file, atomic_folder, write_json

KILLED = """
import os, signal, sys
from pathlib import Path
from cots.files import atomic_file, atomic_folder

path = Path(sys.argv[2])
with {"atomic_file": atomic_file, "atomic_folder": atomic_folder}[sys.argv[1]](path) as partial:
    (partial / "half" if partial.is_dir() else partial).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


class StopError(Exception):
    """An error while something is written."""


def kill_while_writing(writer: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, writer, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_there_once_the_block_ends_and_not_before(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with atomic_file(path, durable=durable) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert names(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(StopError), atomic_file(path) as partial:
        partial.write_text("half")
        raise StopError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    kill_while_writing("atomic_file", path)
    assert path.read_text() == "old"
    with atomic_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_missing_folder_is_not_created_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "none" / "a.json", {})
    assert names(tmp_path) == []


def test_json_is_readable_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"näme": [1, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf8")
    assert "näme" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"näme": [1, None]}


@pytest.mark.parametrize("durable", [False, True])
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "above" / "out"
    for name in ("first", "second"):
        with atomic_folder(path, durable=durable) as partial:
            assert names(partial) == []
            (partial / "inside").mkdir()
            (partial / "inside" / name).touch()
            assert not path.exists() or names(path / "inside") == ["first"]
        assert names(path / "inside") == [name]
    assert names(tmp_path / "above") == ["out"]


def test_an_error_leaves_the_old_folder_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(StopError), atomic_folder(path) as partial:
        (partial / "half").touch()
        raise StopError
    assert names(path) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_killed_writer_leaves_the_old_folder_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    kill_while_writing("atomic_folder", path)
    assert names(path) == ["old"]
    with atomic_folder(path) as partial:
        (partial / "new").touch()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["out"]


def test_the_old_folder_is_restored_after_an_interrupted_swap(tmp_path: Path) -> None:
    path = tmp_path / "out"
    (tmp_path / "out.old.partial").mkdir()
    (tmp_path / "out.old.partial" / "old").touch()
    with pytest.raises(StopError), atomic_folder(path):
        raise StopError
    assert names(path) == ["old"]
    assert names(tmp_path) == ["out"]


def test_writing_files_imports_nothing_heavy() -> None:
    code = "import sys, cots.files; print(*(name for name in ('torch', 'pandas', 'numpy') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
