"""What an installation without extras brings, and that search and the service need no more."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cots.errors import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A process in which the packages of its first argument are not installed; the others are arguments of `cots`.
WITHOUT = """
import json, sys
from importlib.machinery import PathFinder
absent = set(json.loads(sys.argv.pop(1)))
class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
import cots.service.server
from cots.cli import main
main()
"""


def brought_by(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that requirements bring, directly or not, on this platform."""
    brought: set[str] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                waiting += [(Requirement(line), wanted) for line in requires(name) or []]
            except PackageNotFoundError:  # of another machine, such as CUDA's libraries
                continue
            brought.add(name)
    return brought


@pytest.fixture(scope="module")
def base() -> set[str]:
    return brought_by(PROJECT["dependencies"])


@pytest.fixture(scope="module")
def absent(base: set[str]) -> list[str]:
    """Modules of installed distributions that an installation without extras does not bring."""
    owners = {module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()}
    return sorted(module for module, names in owners.items() if names.isdisjoint(base | {"cots"}))


def test_an_installation_without_extras_brings_less_than_half_of_what_one_with_all_stages_does(base: set[str]) -> None:
    pipeline = brought_by(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["pipeline"])
    assert base < pipeline
    assert len(base) <= 126  # half of the 252 that version 0.2 brought
    assert base.isdisjoint({"dvc", "prefect", "great-expectations", "mlflow", "psycopg2-binary"})


def run_without(absent: list[str], *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, json.dumps(absent), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_search_and_service_run_without_extras(absent: list[str], tiny_package: Path) -> None:
    done = run_without(absent, "search", "a red square", "--model", str(tiny_package / "index"))
    assert done.returncode == 0, done.stderr
    assert "rank" in done.stdout


@pytest.mark.slow
def test_what_needs_an_extra_says_how_to_get_it(absent: list[str]) -> None:
    done = run_without(absent, "drift")
    assert done.returncode == 2
    assert done.stderr == "error: this needs great_expectations: run `pip install 'cots[pipeline]'`\n"


@pytest.mark.slow
def test_what_a_project_needs_is_asked_for_before_the_images_are_looked_at(absent: list[str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "project").mkdir()
    done = run_without(absent, "index", "../photos", "--encoders", "clip-b32", cwd=tmp_path / "project")
    assert done.returncode == 2
    assert done.stderr == "error: this needs dvc: run `pip install 'cots[pipeline]'`\n"


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_the_extra_that_is_named_brings_the_package(package: str, extra: str, absent: list[str]) -> None:
    assert package in absent
    owners = {canonicalize_name(name) for name in packages_distributions()[package]}
    assert owners & brought_by(PROJECT["optional-dependencies"][extra])
