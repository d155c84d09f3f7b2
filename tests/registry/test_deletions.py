"""What people delete in MLflow's page, or lose, stops neither promotion nor publishing."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.entities import PagedList

from cots.cli.addresses import CHAMPION_URI
from cots.cli.registry import versions_table
from cots.config.params import Params
from cots.errors import BadInput, CotsError, UnreadableFiles
from cots.refresh import refresh
from cots.registry import catalog
from cots.registry.client import ENCODERS, INDEX
from cots.registry.promotions import PROMOTIONS
from cots.registry.registry import Registry
from cots.service.metrics import ServiceMetrics
from cots.service.version_manager import VersionManager
from cots.tracking.store import get_or_create_experiment
from tests.conftest import Cots, tracked_in
from tests.deployed import add_version_without_files, aliases, measured, register, reindexed

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def test_after_the_superseded_version_was_deleted_others_are_deployed_and_rolled_back(
    registry_of_two: Registry, other_package: Path, tmp_path: Path
) -> None:
    mlflow.MlflowClient().delete_model_version(INDEX, "1")
    with pytest.raises(BadInput, match="no previous version to roll back to: `cots registry promote` deploys any"):
        registry_of_two.rollback(why="back")
    assert register(registry_of_two, reindexed(other_package, tmp_path / "third")).champion
    assert aliases(INDEX) == {"champion": 3, "previous": 2}
    assert registry_of_two.rollback(why="back") == 2


def test_after_the_champion_was_deleted_a_rollback_deploys_the_version_before_it(registry_of_two: Registry) -> None:
    mlflow.MlflowClient().delete_model_version(INDEX, "2")
    assert registry_of_two.rollback(why="somebody deleted version 2") == 1
    assert aliases(INDEX) == aliases(ENCODERS) == {"champion": 1}
    assert not registry_of_two.promote(1, why="again")


def test_an_index_is_deployed_though_the_version_of_its_encoders_was_deleted(
    registry_of_two: Registry, tiny_package: Path, tmp_path: Path
) -> None:
    mlflow.MlflowClient().delete_model_version(ENCODERS, "1")
    assert registry_of_two.rollback(why="worse answers") == 1
    assert aliases(INDEX) == {"champion": 1, "previous": 2}
    assert aliases(ENCODERS) == {"previous": 2}
    without_encoders = reindexed(tiny_package, tmp_path / "third")
    (without_encoders / "encoders").rename(tmp_path / "encoders")
    assert register(registry_of_two, without_encoders).champion
    assert registry_of_two.get_champion().encoders == 1


def test_without_the_alias_of_the_champion_the_gate_compares_with_what_was_deployed_last(
    registry_of_one: Registry, other_package: Path, tmp_path: Path
) -> None:
    mlflow.MlflowClient().delete_registered_model_alias(INDEX, "champion")
    published = register(registry_of_one, measured(other_package, tmp_path / "worse", recall=20.0))
    assert not published.champion
    assert published.reasons.startswith("no version is deployed, so it was compared with version 1; mean recall")
    assert aliases(INDEX) == {"challenger": 2}


def test_where_the_champions_files_are_lost_nothing_replaces_it_but_by_hand(
    registry_of_one: Registry, other_package: Path
) -> None:
    add_version_without_files()
    mlflow.MlflowClient().set_registered_model_alias(INDEX, "champion", "2")
    published = register(registry_of_one, other_package)
    assert not published.champion
    assert "nothing to compare it with: cots-index version 2: evidence/queries.parquet cannot be" in published.reasons
    assert "restore the files, or delete the version in MLflow" in published.reasons
    assert registry_of_one.promote(3, why="there is nothing to compare it with")


def test_a_content_whose_files_are_lost_is_registered_again(registry_of_one: Registry, tiny_package: Path) -> None:
    add_version_without_files()
    assert register(registry_of_one, tiny_package).version == 1
    mlflow.MlflowClient().delete_model_version(INDEX, "1")
    published = register(registry_of_one, tiny_package)
    assert (published.version, published.new) == (3, True)


def test_lost_files_are_reported_in_one_line_with_their_place(registry_of_one: Registry) -> None:
    add_version_without_files()
    with pytest.raises(UnreadableFiles, match=r"version 2: evidence/params.json cannot be read from file:.*: restore"):
        registry_of_one.diff_versions(1, 2)
    with pytest.raises(UnreadableFiles, match=r"version 2: its folder cannot be read from file:.*: restore the files"):
        registry_of_one.promote(2, why="unseen")
    registry_of_one.withdraw({"red": "its owner asked"})
    with pytest.raises(UnreadableFiles, match=r"version 2: cots-index/artifacts/index/items.parquet cannot be read"):
        registry_of_one.find_withdrawn(2)


def test_what_was_deployed_by_hand_before_the_gate_had_decided_stays_deployed(
    registry_of_one: Registry, tiny_package: Path
) -> None:
    for tag in ("promote", "reasons", "contest"):
        mlflow.MlflowClient().delete_model_version_tag(INDEX, "1", f"gate.{tag}")
    published = register(registry_of_one, tiny_package)
    assert (published.champion, published.reasons) == (True, "it was deployed before the gate had decided")


def test_publishing_restores_a_deleted_experiment(registry_of_one: Registry, other_package: Path) -> None:
    client = mlflow.MlflowClient()
    client.delete_experiment(get_or_create_experiment(client))
    assert register(registry_of_one, other_package).champion


def test_a_package_with_withdrawn_samples_is_registered_and_refused(
    registry_of_one: Registry, other_package: Path
) -> None:
    registry_of_one.withdraw({"red": "its owner asked"})
    published = register(registry_of_one, other_package)
    assert (published.champion, published.reasons) == (False, "it contains withdrawn samples: red")
    assert aliases(INDEX) == {"champion": 1, "challenger": 2}


def test_samples_withdrawn_before_anything_was_registered_keep_the_first_version_back(
    registry: Registry, tiny_package: Path
) -> None:
    registry.withdraw({"red": "its owner asked"})
    assert not register(registry, tiny_package).champion


def test_versions_that_were_registered_by_hand_are_listed_and_hinder_nothing(
    registry_of_one: Registry, other_package: Path
) -> None:
    client = mlflow.MlflowClient()
    for name in (INDEX, PROMOTIONS):
        client.create_model_version(name, "file:///nowhere")
    by_hand = registry_of_one.get_version(2)
    assert (by_hand.encoders, by_hand.lineage()["index"]["version"]) == (None, 2)
    assert "2         -" in versions_table(catalog.list_versions())
    with pytest.raises(UnreadableFiles, match="cots-index version 2: its folder cannot be read from file:///nowhere"):
        registry_of_one.promote(2, why="a mistake")
    client.set_registered_model_alias(INDEX, "champion", "2")
    published = register(registry_of_one, other_package)
    assert "nothing to compare it with: cots-index version 2" in published.reasons
    assert registry_of_one.promote(1, why="back")


def test_after_the_champions_alias_was_deleted_every_command_names_the_way_out(
    registry_of_one: Registry, tiny_package: Path, cots: Cots
) -> None:
    mlflow.MlflowClient().delete_registered_model_alias(INDEX, "champion")
    shutil.copytree(tiny_package, "package")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    code, _, err = cots("search", "a red square")
    assert (code, "see `cots registry list`" in err) == (2, True)
    with pytest.raises(BadInput, match="`cots registry promote` deploys one of `cots registry list`"):
        registry_of_one.get_champion()
    code, out, err = cots("registry", "publish")
    assert (code, err) == (0, "")
    assert out.startswith("cots-index version 1 was registered already")
    assert out.endswith("; to deploy it: `cots registry promote --version 1`\n")
    assert cots("registry", "promote", "--version", 1, "--reason", "its alias was deleted")[0] == 0
    assert aliases(INDEX) == {"champion": 1}


def test_more_promotions_than_a_page_holds_all_count(
    registry_of_two: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = mlflow.MlflowClient.search_model_versions

    def search_small_pages(
        client: mlflow.MlflowClient, condition: str, page_token: str | None = None
    ) -> PagedList[ModelVersion]:
        return search(client, condition, max_results=2, page_token=page_token)

    monkeypatch.setattr(mlflow.MlflowClient, "search_model_versions", search_small_pages)
    for number in (1, 2, 1):
        assert registry_of_two.promote(number, why="again")
    assert [promotion.after for promotion in registry_of_two.list_promotions()] == [1, 2, 1, 2, 1]


@contextmanager
def without_files(version: int) -> Iterator[None]:
    source = mlflow.MlflowClient().get_model_version(INDEX, str(version)).source
    files = Path(urlsplit(str(source)).path).parent
    files.rename(files.with_suffix(".away"))
    try:
        yield
    finally:
        files.with_suffix(".away").rename(files)


@contextmanager
def without(delete: Callable[[mlflow.MlflowClient], None]) -> Iterator[None]:
    delete(mlflow.MlflowClient())
    yield


# What somebody deletes by hand where version 2 is the champion and 1 the previous one, and how each step then ends.
DELETED: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "version 1": lambda: without(lambda client: client.delete_model_version(INDEX, "1")),
    "version 2": lambda: without(lambda client: client.delete_model_version(INDEX, "2")),
    "champion": lambda: without(lambda client: client.delete_registered_model_alias(INDEX, "champion")),
    "previous": lambda: without(lambda client: client.delete_registered_model_alias(INDEX, "previous")),
    "experiment": lambda: without(lambda client: client.delete_experiment(get_or_create_experiment(client))),
    "files of 1": lambda: without_files(1),
    "files of 2": lambda: without_files(2),
}
STEPS: dict[str, tuple[object, ...]] = {
    "list": ("registry", "list"),
    "history": ("registry", "history"),
    "lineage": ("registry", "lineage"),
    "diff": ("registry", "diff", 1, 2),
    "search": ("search", "a red square"),
    "promote": ("registry", "promote", "--version", 1, "--reason", "it is faster"),
    "rollback": ("registry", "rollback", "--reason", "wrong answers"),
    "withdraw": ("data", "withdraw", "red", "--reason", "its owner asked"),
}
NONE, NO_FILES = (
    "no version of cots-index is deployed: `cots registry promote`",
    "missing.*restore them, or deploy another",
)
UNREADABLE = "cannot be read from .*: restore the files"
ENDS: dict[str, dict[str, tuple[int, str]]] = {  # exit code and error; other steps succeed
    "version 1": {
        "diff": (2, "has no version 1; existing versions: 2"),
        "promote": (2, "has no version 1; existing versions: 2"),
        "rollback": (2, "no previous version to roll back to: `cots registry promote` deploys any of"),
    },
    "version 2": {
        "lineage": (2, NONE),
        "diff": (2, "has no version 2; existing versions: 1"),
        "search": (2, "see `cots registry list`"),
    },
    "champion": {"lineage": (2, NONE), "search": (2, "see `cots registry list`")},
    "previous": {},
    "experiment": {},
    "files of 1": {"diff": (1, UNREADABLE), "promote": (1, UNREADABLE), "rollback": (1, UNREADABLE)},
    "files of 2": {
        "diff": (1, UNREADABLE),
        "search": (1, NO_FILES),
        "withdraw": (1, f"still served by cots-index version 2: .*{UNREADABLE}.*then repeat the command"),
    },
}


@pytest.mark.parametrize("deleted", DELETED)
def test_whatever_was_deleted_every_step_ends_where_it_should(
    store_of_two_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cots: Cots, deleted: str
) -> None:
    for step, command in STEPS.items():
        if step == "withdraw" and deleted in ("version 1", "previous", "files of 1"):  # as in tests/test_withdraw.py
            continue
        project = tmp_path / step
        project.mkdir()
        monkeypatch.chdir(project)
        shutil.copy(ROOT / "withdrawn.csv", project)
        with tracked_in(Path(shutil.copy(store_of_two_versions, project))), DELETED[deleted]():
            before = aliases(INDEX)
            code, _, err = cots(*command)
            assert (step, code) == (step, ENDS[deleted].get(step, (0, ""))[0]), err
            assert re.search(ENDS[deleted].get(step, (0, "^$"))[1], err), f"{step}: {err}"
            assert err.count("\n") == bool(code)
            after = aliases(INDEX)
            if code or step not in ("promote", "rollback", "withdraw"):
                assert after == before
            elif step == "withdraw":
                assert after["champion"] > max(before.values(), default=0)
                assert Registry().find_withdrawn(after["champion"]) == []
            else:
                assert after["champion"] == 1


# Of `cots registry publish` of a new index, `cots registry refresh` and `cots serve`: the champion or the version that
# answers at the end, or what the error says.
NEW_ENDS: dict[str, dict[str, int | str]] = {
    "version 2": {"refresh": NONE, "serve": "no model models:/cots-index@champion"},
    "champion": {"refresh": NONE, "serve": "no model models:/cots-index@champion"},
    "files of 2": {"refresh": UNREADABLE, "serve": NO_FILES},
}


def try_publish(project: Path) -> int | str:
    published = register(Registry(), project / "package")
    return published.version if published.champion else published.reasons


def try_refresh(project: Path) -> int | str:
    try:
        refreshed = refresh(Params.load(), project)
    except CotsError as error:
        return str(error)
    assert refreshed
    return refreshed.version if refreshed.champion else refreshed.reasons


def try_serve(project: Path) -> int | str:
    manager = VersionManager(CHAMPION_URI, poll=1.0, metrics=ServiceMetrics())
    try:
        manager.refresh()
    except CotsError as error:
        return str(error)
    assert manager.current
    return int(manager.current.view.target.version)


@pytest.mark.parametrize("deleted", DELETED)
def test_whatever_was_deleted_new_versions_and_services_end_where_they_should(
    store_of_two_versions: Path,
    other_package: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deleted: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(tiny_data, "data")
    shutil.copytree(other_package.parent / "reports", "reports")
    reindexed(other_package, tmp_path / "package")
    for step in (try_serve, try_publish, try_refresh):
        if step is try_refresh and deleted in ("version 1", "previous"):  # which a refresh does not look at
            continue
        store = Path(shutil.copy(store_of_two_versions, tmp_path))
        with tracked_in(store), DELETED[deleted]():
            end, name = step(tmp_path), step.__name__.removeprefix("try_")
            expected = NEW_ENDS.get(deleted, {}).get(name, 2 if name == "serve" else 3)
            if isinstance(expected, str):
                assert re.search(expected, str(end)), (name, end)
            else:
                assert (name, end) == (name, expected)
