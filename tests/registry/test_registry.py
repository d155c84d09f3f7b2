import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import mlflow
import pandas as pd
import pytest

from cots.cli.registry import versions_table
from cots.errors import BadInput, RunFailed
from cots.models.dual_encoder import DualEncoder
from cots.registry.client import ENCODERS, INDEX
from cots.registry.promotions import Promotion, PromotionLog
from cots.registry.registry import PublishResult, Registry
from cots.registry.version_tags import SHOWN
from cots.stages.package import starts
from tests.conftest import Cots, ranked
from tests.deployed import aliases, measured, register, reindexed
from tests.servers import free_port, serving

ROOT = Path(__file__).parents[2]


def with_lineage(package: Path, **changed: object) -> Path:
    """The package with changed lineage values."""
    lineage = json.loads((package / "lineage.json").read_text())
    (package / "lineage.json").write_text(json.dumps(lineage | changed))
    return package


def test_the_first_version_is_deployed_by_rule(registry: Registry, tiny_package: Path) -> None:
    assert register(registry, tiny_package) == PublishResult(1, True, True, "it is the first version", {})
    assert aliases(INDEX) == {"champion": 1}
    assert aliases(ENCODERS) == {"champion": 1}


def test_publishing_again_registers_nothing(registry: Registry, tiny_package: Path) -> None:
    register(registry, tiny_package)
    again = register(registry, tiny_package)
    assert (again.version, again.new, again.champion) == (1, False, True)
    assert [info.version for info in registry.list_versions()] == [1]
    assert len(registry.list_promotions()) == 1


@pytest.mark.slow
def test_a_better_version_takes_over_and_the_old_one_is_kept_for_rollback(
    registry: Registry, tiny_package: Path, other_package: Path
) -> None:
    register(registry, tiny_package)
    published = register(registry, other_package)
    assert (published.version, published.champion) == (2, True)
    assert aliases(INDEX) == {"champion": 2, "previous": 1}
    assert aliases(ENCODERS) == {"champion": 2, "previous": 1}


@pytest.mark.slow
def test_a_worse_version_waits_as_challenger_with_the_reason(
    registry_of_one: Registry, other_package: Path, tmp_path: Path
) -> None:
    published = register(registry_of_one, measured(other_package, tmp_path / "worse", recall=20.0))
    assert (published.version, published.new, published.champion) == (2, True, False)
    assert "mean recall of image to text 20.0 % vs champion 40.0" in published.reasons
    assert "allowed -5) may be worse" in published.reasons
    assert published.contest["differences"]["both"]["champion"] == 40.0
    assert aliases(INDEX) == {"champion": 1, "challenger": 2}
    tags = registry_of_one.list_versions()[0].tags
    assert tags["gate.promote"] == "false"
    assert tags["gate.reasons"] == published.reasons


@pytest.mark.slow
def test_an_equal_version_is_not_shown_to_be_better(
    registry_of_one: Registry, other_package: Path, tmp_path: Path
) -> None:
    published = register(registry_of_one, measured(other_package, tmp_path / "same", recall=40.0))
    assert not published.champion
    assert "is not shown to be better" in published.reasons


@pytest.mark.slow
def test_on_other_test_queries_the_champion_is_asked_them_too(
    registry_of_one: Registry, other_package: Path, tmp_path: Path
) -> None:
    harder = with_lineage(shutil.copytree(other_package, tmp_path / "harder"), **{"queries.digest": "others"})
    digests = []

    def rank_queries(model: DualEncoder) -> pd.DataFrame:
        digests.append(model.digest)
        return ranked(35.0)

    published = register(registry_of_one, harder, rank_queries)
    assert digests == [registry_of_one.list_versions()[-1].tags["encoder.digest"]]
    assert published.champion
    assert published.contest["fall"] == pytest.approx(5.0)
    assert published.contest["differences"]["both"]["champion"] == pytest.approx(35.0)


@pytest.mark.slow
def test_where_the_champion_fails_the_new_queries_too_the_queries_are_to_blame(
    registry_of_one: Registry, other_package: Path, tmp_path: Path
) -> None:
    spoiled = with_lineage(shutil.copytree(other_package, tmp_path / "spoiled"), **{"queries.digest": "others"})
    published = register(registry_of_one, spoiled, lambda model: ranked(1.0))
    assert not published.champion
    assert "the champion scores 39.0 points less than when it was registered" in published.reasons


@pytest.mark.slow
def test_an_index_below_the_bounds_is_not_deployed_however_good_its_encoders(
    registry_of_one: Registry, other_package: Path, tmp_path: Path
) -> None:
    lossy = with_lineage(shutil.copytree(other_package, tmp_path / "lossy"), index={"recall": 0.5, "ms_per_query": 0.1})
    assert "index recall 50.0% of exact search" in register(registry_of_one, lossy).reasons


@pytest.mark.slow
def test_a_new_index_of_the_same_encoders_adds_no_version_of_the_encoders(
    registry_of_one: Registry, tiny_package: Path, tmp_path: Path
) -> None:
    register(registry_of_one, reindexed(tiny_package, tmp_path / "more"))
    assert [(info.version, info.encoders) for info in registry_of_one.list_versions()] == [(2, 1), (1, 1)]
    assert aliases(ENCODERS) == {"champion": 1, "previous": 1}


@pytest.mark.slow
def test_a_refused_version_can_be_promoted_by_hand_and_taken_back(
    registry_of_one: Registry, other_package: Path, tmp_path: Path
) -> None:
    register(registry_of_one, measured(other_package, tmp_path / "worse", recall=20.0))
    assert registry_of_one.promote(2, why="it is faster")
    assert aliases(INDEX) == {"champion": 2, "previous": 1}
    assert registry_of_one.rollback(why="it was not") == 1
    assert aliases(INDEX) == {"champion": 1, "previous": 2}
    assert registry_of_one.rollback(why="it was after all") == 2
    moves = [(move.what, move.before, move.after, move.why) for move in registry_of_one.list_promotions()]
    assert moves == [
        ("promote", None, 1, "it is the first version"),
        ("promote", 1, 2, "it is faster"),
        ("rollback", 2, 1, "it was not"),
        ("rollback", 1, 2, "it was after all"),
    ]
    assert all(move.who for move in registry_of_one.list_promotions())
    assert sorted(registry_of_one.list_promotions(), key=lambda move: move.when) == registry_of_one.list_promotions()


def test_promoting_what_is_deployed_changes_nothing(registry_of_one: Registry) -> None:
    assert not registry_of_one.promote(1, why="again")
    assert aliases(INDEX) == {"champion": 1}
    assert len(registry_of_one.list_promotions()) == 1


def test_a_user_without_a_name_stands_in_the_history_by_number(
    registry_of_two: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as in a container whose user the image does not know
    assert registry_of_two.promote(1, why="it is faster")
    assert registry_of_two.list_promotions()[-1].who == f"uid {os.getuid()}"


@pytest.mark.slow
def test_a_promotion_that_was_cut_off_is_repaired_by_repeating_it(registry_of_two: Registry) -> None:
    mlflow.MlflowClient().set_registered_model_alias(ENCODERS, "champion", "1")
    registry_of_two.promote(2, why="repair")
    assert aliases(ENCODERS)["champion"] == 2


@pytest.mark.slow
def test_a_registration_that_was_cut_off_before_the_gate_is_decided_the_next_time(
    registry_of_one: Registry, tiny_package: Path
) -> None:
    client = mlflow.MlflowClient()
    client.delete_model_version_tag(INDEX, "1", "gate.promote")
    client.delete_registered_model_alias(INDEX, "champion")
    assert register(registry_of_one, tiny_package).champion


@pytest.mark.slow
def test_a_registration_that_was_cut_off_after_its_promotion_keeps_the_reasons_it_had(
    registry_of_one: Registry, other_package: Path
) -> None:
    before = register(registry_of_one, other_package)
    mlflow.MlflowClient().delete_model_version_tag(INDEX, "2", "gate.promote")
    again = register(registry_of_one, other_package)
    assert (again.champion, again.reasons, again.contest) == (True, before.reasons, before.contest)
    assert registry_of_one.list_versions()[0].tags["gate.promote"] == "true"
    assert len(registry_of_one.list_promotions()) == 2


@pytest.mark.slow
def test_of_two_concurrent_promotions_one_wins_and_the_other_fails_with_a_reason(
    registry_of_two: Registry, tiny_package: Path, tmp_path: Path
) -> None:
    """In every round two threads promote different versions at the same time."""
    registry = registry_of_two
    register(registry, reindexed(tiny_package, tmp_path / "third"))
    deployed = aliases(INDEX)["champion"]
    for _ in range(5):
        rivals = [version for version in (1, 2, 3) if version != deployed]
        together = threading.Barrier(len(rivals))

        def promote(version: int, together: threading.Barrier = together) -> str:
            rival = Registry()
            together.wait()
            try:
                rival.promote(version, why="race")
            except RunFailed as error:
                return str(error)
            return ""

        before = len(registry.list_promotions())
        with ThreadPoolExecutor(len(rivals)) as pool:
            errors = list(pool.map(promote, rivals))
        moves = registry.list_promotions()[before:]
        assert len(moves) == errors.count("")
        for message in filter(None, errors):
            assert message.startswith("a concurrent promote to version ")
        deployed = aliases(INDEX)["champion"]
        assert deployed == moves[-1].after
        assert aliases(ENCODERS)["champion"] == registry.get_version(deployed).encoders
        assert aliases(INDEX)["previous"] == moves[-1].before


def test_a_promotion_that_follows_a_void_one_does_not_count(registry_of_one: Registry) -> None:
    moves = PromotionLog(mlflow.MlflowClient(), INDEX)
    last = moves.get_last_number()

    def append(what: Literal["promote", "rollback"], follows: int) -> Promotion | None:
        return moves.append(what, who="a", why="b", before=1, after=1, follows=follows)

    assert append("promote", last) is None
    overtaken = append("rollback", last)
    assert overtaken is not None
    assert (overtaken.what, overtaken.number) == ("promote", last + 1)
    assert [move.what for move in moves.list_promotions()] == ["promote", "promote"]
    assert append("rollback", moves.get_last_number()) is None


@pytest.mark.slow
def test_a_version_that_holds_a_withdrawn_image_is_deployed_no_more(registry_of_two: Registry) -> None:
    registry_of_two.withdraw({"red": "its owner asked"})
    with pytest.raises(
        BadInput, match="cots-index version 1 contains withdrawn samples .red.: run `cots registry refresh`"
    ):
        registry_of_two.rollback(why="to the old one")
    assert aliases(INDEX)["champion"] == 2
    assert len(registry_of_two.list_promotions()) == 2


def test_the_lineage_of_a_version_leads_back_to_what_made_it(registry: Registry, tiny_package: Path) -> None:
    Path("runs").mkdir()
    Path("runs/pretrain.json").write_text(json.dumps({"run_id": "f" * 32}))
    register(registry, tiny_package)
    lineage, packed = registry.get_champion().lineage(), json.loads((tiny_package / "lineage.json").read_text())
    assert lineage["index"]["version"] == 1
    assert lineage["encoders"] == {"version": 1, "digest": packed["encoder.digest"], "target": "image-text"}
    assert lineage["data"]["manifest"] == packed["manifest.digest"]
    assert lineage["runs"] == {"pretrain": "f" * 32}
    assert lineage["metrics"]["i2t.R1"] == 40.0
    assert lineage["init_from"] == {}
    assert json.loads(json.dumps(lineage)) == lineage


def test_the_lineage_names_what_training_began_with_through_all_generations() -> None:
    checkpoint = {"name": "openai/clip-vit-base-patch32", "digest": "a"}
    config = {"init_from": {"name": "models:/cots-index/3", "digest": "b", "init_from": checkpoint}}
    tags = starts(config)
    assert tags == {
        "init_from.1.name": "models:/cots-index/3",
        "init_from.1.digest": "b",
        "init_from.2.name": "openai/clip-vit-base-patch32",
        "init_from.2.digest": "a",
    }
    assert starts({}) == {}


@pytest.mark.slow
def test_two_versions_are_laid_side_by_side(registry_of_two: Registry) -> None:
    differences = registry_of_two.diff_versions(1, 2)
    assert differences["metrics"]["rsum"] == (240.0, 300.0)
    assert differences["parameters"] == {}
    assert differences["data"] == {}


@pytest.mark.slow
def test_figures_of_two_test_sets_are_nowhere_laid_side_by_side(registry_of_two: Registry, cots: Cots) -> None:
    mlflow.MlflowClient().set_model_version_tag(INDEX, "1", "queries.digest", "of another test split")
    assert "metrics" not in registry_of_two.diff_versions(1, 2)
    assert "metrics\n  not comparable" in cots("registry", "diff", "1", "2")[1]
    old, new = registry_of_two.get_version(1), registry_of_two.get_version(2)
    listed = versions_table([new, old])
    assert "300.0 " in listed
    assert "240.0*" in listed
    assert listed.endswith("not comparable")
    assert "*" not in versions_table([new])


def test_a_version_tells_what_it_learnt_from_and_what_it_holds(registry_of_one: Registry) -> None:
    assert registry_of_one.get_artifacts(1).load_training_ids() == {"1", "2"}
    assert "red" in registry_of_one.get_artifacts(1).load_item_ids()


@pytest.mark.slow
def test_a_rollback_that_was_cut_off_behind_its_first_alias_leaves_a_way_back(registry_of_two: Registry) -> None:
    registry_of_two.rollback(why="it was worse")
    mlflow.MlflowClient().set_registered_model_alias(
        INDEX, "previous", "1"
    )  # champion moved to 1, previous not yet to 2
    assert registry_of_two.rollback(why="it was not") == 2
    assert aliases(INDEX) == {"champion": 2, "previous": 1}


def test_a_version_that_does_not_exist_cannot_be_promoted(registry_of_one: Registry) -> None:
    with pytest.raises(BadInput, match="cots-index has no version 7; existing versions: 1"):
        registry_of_one.promote(7, why="luck")


@pytest.mark.slow
def test_without_a_previous_version_there_is_no_way_back(registry: Registry, tiny_package: Path) -> None:
    with pytest.raises(BadInput, match="cots-index has no previous version to roll back to"):
        registry.rollback(why="nothing there")
    register(registry, tiny_package)
    with pytest.raises(BadInput, match="cots-index has no previous version to roll back to"):
        registry.rollback(why="only one there")


def test_an_unfinished_package_is_not_published(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a complete package"):
        register(registry, tmp_path / "package")
    assert registry.list_versions() == []


def test_a_version_is_tagged_with_its_lineage_runs_and_results(
    registry: Registry, tiny_package: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pretrain.json").write_text(json.dumps({"run_id": "f" * 32}))
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    register(registry, tiny_package)
    tags = registry.list_versions()[0].tags
    lineage = json.loads((tiny_package / "lineage.json").read_text())
    assert tags["run.pretrain"] == "f" * 32
    assert tags["metrics.rsum"] == "240.0"
    assert tags["metrics.i2t.R1"] == "40.0"
    assert tags["metrics.chance.t2i.R10"] == "2.0"
    assert tags["content.digest"] == lineage["index.content"]
    for name in ("manifest.digest", "params.digest", "encoder.digest", "index.digest"):
        assert tags[name] == lineage[name]
    assert len(tags["dvc.lock.digest"]) == 64
    stored = mlflow.MlflowClient().get_model_version(INDEX, "1").tags
    assert set(stored) <= SHOWN | {"technical", "gate.promote", "gate.reasons", "gate.contest"}
    assert len(stored) <= 16


def test_a_version_is_described_for_people_and_its_run_is_nested_in_the_pipelines(
    registry: Registry, tiny_package: Path, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient()
    parent = client.create_run("0").info.run_id
    evaluate = client.create_run("0", tags={"mlflow.parentRunId": parent}).info.run_id
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "evaluate.json").write_text(json.dumps({"run_id": evaluate}))
    register(registry, tiny_package)
    version = client.get_model_version(INDEX, "1")
    assert version.description
    assert version.run_id
    assert version.description.startswith("Index of 6 images and videos. Encoders of image-text, ")
    assert (
        "Test split: RSUM 240.0, i2t.R1 40.0 %, i2t.R10 40.0 %, t2i.R1 40.0 %, t2i.R10 40.0 %." in version.description
    )
    assert "A search index with the encoders" in str(client.get_registered_model(INDEX).description)
    assert client.get_run(version.run_id).data.tags["mlflow.parentRunId"] == parent


def test_a_version_outlives_the_folder_that_it_was_published_from(
    registry: Registry, tiny_package: Path, tmp_path: Path
) -> None:
    package = shutil.copytree(tiny_package, tmp_path / "package")
    register(registry, package)
    shutil.rmtree(package)
    rankings = mlflow.pyfunc.load_model("models:/cots-index@champion").predict(["a red square"])
    assert len(rankings[0]) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("registry_of_one")
def test_the_champion_answers_in_a_fresh_process_far_from_the_checkout_as_its_package_does_here(
    tiny_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    code = (
        f"import sys; sys.path = [path for path in sys.path if path != {str(ROOT)!r}]\n"
        "import json, mlflow\n"
        "model = mlflow.pyfunc.load_model('models:/cots-index@champion')\n"
        "found = model.predict(['a red square', 'blue'], params={'k': 3})\n"
        "import cots; print(json.dumps([cots.__file__, found]))"
    )
    variables = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "OMP_NUM_THREADS")}
    environment = variables | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path_factory.mktemp("far"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, rankings = json.loads(done.stdout.splitlines()[-1])
    assert "mlartifacts" in file
    expected = mlflow.pyfunc.load_model(str(tiny_package / "index")).predict(["a red square", "blue"], params={"k": 3})
    assert [[(hit["rank"], hit["id"]) for hit in hits] for hits in rankings] == [
        [(hit["rank"], hit["id"]) for hit in hits] for hits in expected
    ]


@pytest.fixture
def server(tmp_path: Path, empty_store: Path, fork_python: str) -> Iterator[str]:
    """The URL of an MLflow server that stores the artifacts itself."""
    shutil.copy(empty_store, tmp_path / "s.db")
    port = free_port()
    options = ["--backend-store-uri", "sqlite:///s.db", "--artifacts-destination", "kept", "--workers", "1"]
    command = [fork_python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *options]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    address = f"http://127.0.0.1:{port}"
    with serving(command, answers=f"{address}/health", folder=tmp_path, environment=os.environ | quiet):
        yield address


NO_COMMIT = "nothing is committed to git, so the version names no commit that it was made from\n"


@pytest.mark.slow
def test_a_server_keeps_versions_and_files_and_prints_nothing_between_results(
    server: str, tiny_package: Path, fork_python: str, tmp_path: Path
) -> None:
    package = shutil.copytree(tiny_package, tmp_path / "package")
    shutil.copy(ROOT / "params.yaml", tmp_path)

    def cots(*arguments: str, python: str = fork_python) -> str:
        command = [python, "-m", "cots", *arguments]
        environment = os.environ | {"MLFLOW_TRACKING_URI": server}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.removeprefix(NO_COMMIT)) == (0, "")
        return done.stdout

    assert cots("registry", "publish").startswith("cots-index version 1 registered; it is the champion")
    assert "was registered already" in cots("registry", "publish")
    shutil.rmtree(package)
    # One real start: what libraries say when they are imported would also stand between results.
    assert len(json.loads(cots("search", "a red square", "--json", python=sys.executable))) == 6


def test_a_registry_that_cannot_be_opened_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, whatever its name says" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RunFailed, match="file is not a database") as error:
        Registry()
    assert "\n" not in str(error.value)
