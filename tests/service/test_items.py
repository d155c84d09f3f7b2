"""Samples are added and changed over HTTP, behind a token: stored at once, and found after a refresh of the index."""

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cots.config.params import Params
from cots.data.changes import Change, add_changes, read_changes
from cots.data.withdrawn import add_withdrawn
from cots.registry.publishing import publish
from cots.service.client import Client, RequestFailed
from cots.service.schemas import MAX_CHANGED
from tests.conftest import tracked_in
from tests.deployed import squares_project

from .conftest import Served, encoded, in_base64, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
SECRET = "a-secret-of-enough-characters"
SECONDS = 400.0  # for a refresh on a busy machine
NOISE = Image.effect_noise((60, 50), 90).convert("RGB")


@pytest.fixture
def project(
    empty_store: Path, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork_python: str
) -> Iterator[Path]:
    """A project of plain squares whose version 1 is `tiny_package`."""
    folder = squares_project(tmp_path / "project", tiny_package, fork_python)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", fork_python)
    with tracked_in(Path(shutil.copy(empty_store, tmp_path))):
        publish(Params.load())
        yield folder


def wait_until_found(served: Served, client: Client, change: int) -> None:
    """Wait until the version that holds a change answers."""
    served.until(lambda: client.changes().indexed >= change, SECONDS, every=0.2)
    version = client.changes().version
    served.until(lambda: client.ready().versions.index.version == version, SECONDS, every=0.2)


def test_added_images_are_found_changed_and_withdrawn(project: Path) -> None:
    def deployed() -> Any:
        return serving("models:/cots-index@champion", token=SECRET, project=project, source=project / "pictures")

    with deployed() as served, Client(served.url, token=SECRET, timeout=SECONDS) as client:
        assert client.changes().model_dump() == {"stored": 0, "indexed": 0, "version": None, "trouble": None}
        changed = client.change_items(
            [
                {"id": "new/noise.png", "image": NOISE, "captions": ["a lot of noise"], "metadata": {"year": 2026}},
                {"id": "purple.png", "image": encoded("purple")},
                {"id": "broken.jpg", "image": encoded("red", "JPEG")[:200]},
            ]
        )
        assert (changed.accepted, changed.change) == (["new/noise.png", "purple.png"], 1)
        [rejection] = changed.rejected
        assert (rejection.id, rejection.reason) == ("broken.jpg", "cut short")
        wait_until_found(served, client, 1)
        hit = client.search(image=NOISE, k=1).results[0]
        assert (hit.id, hit.captions, hit.split, hit.metadata) == (
            "new/noise.png", ["a lot of noise"], "train", {"year": 2026},
        )  # fmt: skip
        assert hit.score > 0.9
        version = client.ready().versions.index.version or ""
        assert Image.open(io.BytesIO(client.original(version, hit.row))).tobytes() == NOISE.tobytes()
        assert client.search("purple", where={"split": "gallery"}).results[0].id == "purple.png"
        [red] = [item for item in client.results("a", k=100) if item.id == "red48.png"]  # of the source, as before
        assert client.original(version, red.row) == (project / "pictures" / "red48.png").read_bytes()
    # What a killed service leaves, if the request came while `prepare` ran: DVC takes the stage for up to date.
    add_changes(project / "changes.jsonl", [Change(id="purple.png", captions=("a purple thing",))], {})
    subprocess.run([sys.executable, "-m", "dvc", "commit", "--quiet", "--force", "prepare"], check=True)
    with deployed() as served, Client(served.url, token=SECRET, timeout=SECONDS) as client:
        wait_until_found(served, client, 2)
        [hit] = [hit for hit in client.results("a", k=100) if hit.id == "purple.png"]
        assert (hit.captions, hit.split) == (["a purple thing"], "train")
        report = client.withdraw(["purple.png"], "its owner asked").report
        assert "images that requests gave and no sample uses any more: changes/" in report
        served.until(lambda: "purple.png" not in {hit.id for hit in client.results("a", k=100)}, SECONDS, every=0.2)
        again = client.change_items([{"id": "purple.png", "image": encoded("purple")}])
        assert (again.accepted, again.rejected[0].reason, again.change) == ([], "withdrawn", None)
        assert 'cots_item_changes_total{outcome="rejected"} 1.0' in client.metrics()


@pytest.fixture
def bare_project(tmp_path: Path) -> Path:
    """The files of a project that a request reads, before its first `dvc repro`."""
    for name in ("dvc.yaml", "params.yaml", "withdrawn.csv", "changes.jsonl"):
        shutil.copy(ROOT / name, tmp_path)
    add_withdrawn(tmp_path / "withdrawn.csv", {"gone.png": "its owner asked"})
    return tmp_path


@pytest.fixture
def guarded(mixed_package: Path, bare_project: Path) -> Iterator[Served]:
    with serving(mixed_package, project=bare_project, token=SECRET) as served:
        served.client.headers["Authorization"] = f"Bearer {SECRET}"
        yield served


def test_every_item_is_accepted_or_rejected_with_its_reason(guarded: Served, bare_project: Path) -> None:
    red = in_base64(encoded("red"))
    reasons = {
        "good.png": None,
        "gone.png": "withdrawn",
        "unknown.png": "no image",
        "not-base64.png": "not a picture",
        "tiny.png": "too small",
        "huge.png": "too many pixels",
        "text.png": "not a picture",
        "talkative.png": "caption too long",
        "rich.png": "too much metadata",
        "../../etc/passwd": None,  # an id is no path
    }
    fields: dict[str, dict[str, Any]] = {
        "unknown.png": {"image": None, "captions": ["a dog"]},
        "not-base64.png": {"image": "!"},
        "tiny.png": {"image": in_base64(encoded("red", size=(40, 9)))},
        "huge.png": {"image": in_base64(encoded("red", size=(2000, 1000)))},
        "text.png": {"image": in_base64(b"<script>")},
        "talkative.png": {"captions": ["x" * 501]},
        "rich.png": {"metadata": {str(number): "x" * 1000 for number in range(11)}},
    }
    items = [{"id": name, "image": red} | fields.get(name, {}) for name in reasons]
    answer = guarded.client.post("/items", json={"items": [*items, {"id": "good.png", "image": red}]}).json()
    assert answer["accepted"] == ["good.png", "../../etc/passwd"]
    assert [(entry["id"], entry["reason"]) for entry in answer["rejected"]] == [
        *((name, reason) for name, reason in reasons.items() if reason),
        ("good.png", "duplicate id"),
    ]
    assert answer["change"] == 1
    assert set(read_changes(bare_project / "changes.jsonl")) == set(answer["accepted"])
    assert len(list((bare_project / "changes").iterdir())) == 1  # the same content twice
    caption = guarded.client.post("/items", json={"items": [{"id": "good.png", "captions": ["a dog"]}]}).json()
    assert caption == {"accepted": ["good.png"], "rejected": [], "change": 2}
    stored = read_changes(bare_project / "changes.jsonl")["good.png"]
    assert (stored.captions, (bare_project / "changes" / str(stored.image)).read_bytes()) == (
        ("a dog",),
        encoded("red"),
    )
    nothing = guarded.client.post("/items", json={"items": [{"id": "good.png"}]}).json()
    assert nothing["rejected"][0]["reason"] == "nothing to change"


@pytest.mark.parametrize("manifest", [None, b"", b"PAR1, but cut short"])
def test_while_prepare_writes_the_manifest_the_samples_that_are_served_are_known(
    guarded: Served, bare_project: Path, manifest: bytes | None
) -> None:
    if manifest is not None:
        (bare_project / "data").mkdir()
        (bare_project / "data/manifest.parquet").write_bytes(manifest)
    items = [{"id": name, "captions": ["a red thing"]} for name in ("train-image-red", "unknown.png")]
    answer = guarded.client.post("/items", json={"items": items}).json()
    assert answer["accepted"] == ["train-image-red"]
    assert [entry["reason"] for entry in answer["rejected"]] == ["no image"]


def test_a_malformed_request_stores_nothing(guarded: Served, bare_project: Path) -> None:
    cases: list[tuple[object, str]] = [
        ({"items": []}, "items: list should have at least 1 item"),
        ({"items": [{"id": "a"}] * (MAX_CHANGED + 1)}, "items: list should have at most 100 items"),
        ({"items": [{"id": "a", "metadata": {"x": [1]}}]}, "items.0.metadata.x: input should be a valid string or "),
        ({"items": [{"id": "a", "captions": ["b", 3]}]}, "items.0.captions.1: input should be a valid string"),
        ({"items": [{"id": ""}]}, "items.0.id: string should have at least 1 character"),
        ({"items": [{"id": "a\0"}]}, "id: it is blank or malformed"),
        ({"items": [{"id": "a", "caption": "b"}]}, "unexpected field caption: a change is a list of items"),
        ({"items": [{"id": "a", "captions": [" "]}]}, "it is blank or malformed"),
        ({"items": [{"id": "a", "metadata": {"b": {"c": 1}}}]}, "input should be"),
        ({"items": [1] * 25_000}, "the body has more values than a request of its kind, 20,000"),
        ({}, "no items: a change is a list of items"),
    ]
    for body, sentence in cases:
        answer = guarded.client.post("/items", json=body)
        assert (answer.status_code, sentence in answer.json()["error"]) == (422, True), answer.text
    assert read_changes(bare_project / "changes.jsonl") == {}
    with Client(guarded.url) as stranger, pytest.raises(RequestFailed, match="token required"):
        stranger.change_items([{"id": "a", "image": encoded("red")}])


def test_changes_that_cannot_be_indexed_stay_stored_and_say_why(
    guarded: Served, bare_project: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", fork_python)
    with Client(guarded.url, token=SECRET) as client:
        assert client.change_items([{"id": "a.png", "image": encoded("red")}]).change == 1
        guarded.until(lambda: client.changes().trouble is not None, SECONDS, every=0.2)
        status = client.changes()
        assert (status.stored, status.indexed, status.version) == (1, 0, None)
        assert "stored changes are not indexed yet: " in (status.trouble or "")
        assert "cots_failed_refreshes_total 1.0" in client.metrics()
        (bare_project / "params.yaml").unlink()
        with pytest.raises(RequestFailed, match="nothing is stored: ") as refused:
            client.change_items([{"id": "b.png", "image": encoded("red")}])
        assert refused.value.status == 503


@pytest.fixture
def refreshes(guarded: Served, bare_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of a refresh, what it prints: the content of a file, from which it takes a line each time."""
    outcomes = tmp_path / "outcomes"
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nhead -n 1 {outcomes}\nsed -i 1d {outcomes}\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    return outcomes


def test_whatever_a_refresh_does_later_changes_are_indexed(guarded: Served, refreshes: Path) -> None:
    refreshes.write_text('oops\n{"champion": true, "version": 7}\n')
    with Client(guarded.url, token=SECRET) as client:
        client.change_items([{"id": "a.png", "image": encoded("red")}])
        guarded.until(lambda: "not indexed yet: Expecting value" in (client.changes().trouble or ""))
        client.change_items([{"id": "b.png", "image": encoded("red")}])
        guarded.until(lambda: client.changes().indexed == 2)
        assert client.changes().model_dump() == {"stored": 2, "indexed": 2, "version": "7", "trouble": None}


def test_after_an_earlier_list_has_been_restored_later_changes_are_indexed(
    guarded: Served, refreshes: Path, bare_project: Path
) -> None:
    refreshes.write_text('{"champion": true, "version": 7}\n')
    listed = bare_project / "changes.jsonl"
    with Client(guarded.url, token=SECRET) as client:
        client.change_items([{"id": "a.png", "image": encoded("red")}, {"id": "b.png", "image": encoded("red")}])
        guarded.until(lambda: client.changes().indexed == 1)
        restored = listed.read_bytes()
        client.change_items([{"id": "a.png", "captions": ["a mistake"]}])
        guarded.until(lambda: client.changes().trouble is not None)  # there is no second outcome
        assert (client.changes().stored, client.changes().indexed) == (2, 1)
        refreshes.write_text('{"champion": true, "version": 8}\n')
        client.change_items([{"id": "a.png", "captions": ["another mistake"]}])
        guarded.until(lambda: client.changes().indexed == 3)
        listed.write_bytes(restored)
        assert client.change_items([{"id": "a.png", "captions": ["a red thing"]}]).change == 2
        assert client.changes().indexed == 1
        guarded.until(lambda: "not indexed yet" in (client.changes().trouble or ""))
        refreshes.write_text('{"champion": true, "version": 9}\n')
        client.change_items([{"id": "b.png", "captions": ["one more"]}])
        guarded.until(lambda: client.changes().indexed == 3)
        assert client.changes().version == "9"


def test_a_service_without_a_project_or_with_one_of_before_takes_no_changes(
    served: Served, mixed_package: Path, bare_project: Path
) -> None:
    with Client(served.url) as client:
        for call in (client.changes, lambda: client.change_items([{"id": "a"}])):
            with pytest.raises(RequestFailed, match="this service changes no data") as refused:
                call()
            assert refused.value.status == 403
    (bare_project / "dvc.yaml").write_text(
        "stages:\n  prepare:\n    cmd: python -m cots.stages.prepare withdrawn.csv\n"
    )
    with (
        serving(mixed_package, project=bare_project, token=SECRET) as guarded,
        Client(guarded.url, token=SECRET) as client,
        pytest.raises(
            RequestFailed, match=r"end `cmd` of stage prepare with `verdicts\.csv changes\.jsonl`"
        ) as refused,
    ):
        client.change_items([{"id": "a", "image": encoded("red")}])
    assert refused.value.status == 403
