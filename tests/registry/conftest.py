"""Registries with no, one and two versions."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cots.registry.registry import Registry
from tests.conftest import tracked_in


@pytest.fixture
def registry(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    return Registry()


@pytest.fixture
def registry_of_one(store_of_one_version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry in which `tiny_package` is version 1."""
    monkeypatch.chdir(tmp_path)
    with tracked_in(Path(shutil.copy(store_of_one_version, tmp_path))):
        yield Registry()


@pytest.fixture
def registry_of_two(store_of_two_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry in which `other_package`, version 2, has replaced `tiny_package`, version 1."""
    monkeypatch.chdir(tmp_path)
    with tracked_in(Path(shutil.copy(store_of_two_versions, tmp_path))):
        yield Registry()
