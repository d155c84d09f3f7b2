"""If a command that changes the registry is killed anywhere, the same command then ends as if nobody had killed it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path

import pytest
import yaml

from cots.config.params import Params
from cots.data.withdrawn import read_withdrawn
from cots.refresh import refresh
from cots.registry.catalog import read_model
from cots.registry.client import ENCODERS, INDEX
from cots.registry.promotions import PROMOTIONS, select_valid
from cots.registry.registry import Registry
from tests.conftest import Cots, tracked_in
from tests.deployed import register
from tests.kill_points import contents, run

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# Files that differ each time, because they hold random ids and times; gate.json says whether the version is new.
VARYING = ("mlflow.db", "mlartifacts/", ".dvc/", "withdrawn.csv", "reports/gate.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A link that leads to one project at a time; the store of each keeps its files below it."""
    return tmp_path_factory.mktemp("killed") / "project"


def use(place: Path, project: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(project)


@pytest.fixture(scope="module")
def before(place: Path, empty_store: Path, tiny_package: Path, other_package: Path, tiny_data: Path) -> Path:
    """A project in which `tiny_package` is deployed and `other_package` is about to be published."""
    project = place.with_name("before")
    shutil.copytree(tiny_data, project / "data")
    shutil.copytree(tiny_package.parent / "reports", project / "reports")
    shutil.copytree(other_package, project / "package")
    shutil.copy(empty_store, project / "mlflow.db")
    shutil.copy(ROOT / "withdrawn.csv", project)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["gate"]["bootstrap_resamples"] = 100
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    use(place, project)
    with tracked_in(place / "mlflow.db"), chdir(project):
        register(Registry(), tiny_package)
    return project


@pytest.fixture(scope="module")
def after(place: Path, before: Path) -> Path:
    """The same project when `other_package` is deployed."""
    project = shutil.copytree(before, place.with_name("after"))
    use(place, project)
    with tracked_in(project / "mlflow.db"), chdir(project):
        register(Registry(), project / "package")
    return project


def outcome(project: Path) -> dict[str, object]:
    """Versions with their tags, aliases, history, open runs, withdrawn samples, and all files that can be compared."""
    state: dict[str, object] = {
        name: digest for name, digest in contents(project).items() if not name.startswith(VARYING)
    }
    with chdir(project):
        models = {name: read_model(name) for name in (INDEX, ENCODERS, PROMOTIONS)}
        state["withdrawn"] = read_withdrawn(Path("withdrawn.csv"))
    for name, model in models.items():
        assert model
        tags = [(entry.version, {**entry.tags, "gate.contest": ""}) for entry in model.entries]  # it holds a time
        state[name] = tags, dict(model.aliases)
        if name == PROMOTIONS:
            assert len(select_valid(model.entries)) == len(model.entries)
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        state["open runs"] = database.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
    return state


def killed_states(python: str, place: Path, start: Path, folder: Path, *command: str, every: int) -> Iterator[Path]:
    """Yield the project, as the working folder, in the state after each kill; then compare what the caller has left.

    Args:
        python: the interpreter that runs the command for the first time.
        place: the fixture.
        start: the project before the command.
        folder: empty, for the states.
        command: module and arguments.
        every: 1 for all kills, 4 for every fourth.
    """
    whole, states = shutil.copytree(start, folder / "whole"), folder / "states"
    states.mkdir()
    use(place, whole)
    process = run(python, whole, str(states), *command)
    assert process.returncode == 0, process.stderr
    expected = outcome(whole)
    for state in sorted(state for state in states.iterdir() if state.is_dir())[every - 1 :: every]:
        use(place, state)
        with tracked_in(state / "mlflow.db"), chdir(state):
            yield state
        assert outcome(state) == expected, f"killed at state {state.name}"


@pytest.mark.parametrize(
    ("start", "command", "every", "min_states"),
    [
        ("before", ("registry", "publish"), 4, 4),
        ("after", ("registry", "promote", "--version", "1", "--reason", "it is faster"), 2, 3),
        ("after", ("registry", "rollback", "--reason", "wrong answers"), 2, 3),
        ("after", ("data", "withdraw", "red", "--reason", "its owner asked"), 4, 4),
    ],
    ids=["publish", "promote", "rollback", "withdraw"],
)
def test_the_same_command_completes_what_was_killed(
    place: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    fork_python: str,
    cots: Cots,
    start: str,
    command: tuple[str, ...],
    every: int,
    min_states: int,
) -> None:
    states = 0
    for _ in killed_states(fork_python, place, request.getfixturevalue(start), tmp_path, "cots", *command, every=every):
        code, _, err = cots(*command)
        assert code == 0
        assert not err or (command[1], err.count("\n")) == ("publish", 1)  # which says that nothing is committed
        states += 1
    assert states >= min_states


def test_a_refresh_that_was_killed_is_completed(place: Path, before: Path, tmp_path: Path, fork_python: str) -> None:
    states = 0
    for _ in killed_states(fork_python, place, before, tmp_path, "tests.registry.refresh_alone", every=5):
        refresh(Params.load())
        states += 1
    assert states >= 3
