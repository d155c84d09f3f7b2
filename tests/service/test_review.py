"""Pairs are judged on a page, by key."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import httpx
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from cots.data.manifest import read_manifest
from cots.data.pairs import PAIR_COLUMNS
from cots.data.quality.suspects import find_suspects
from cots.data.verdicts import pair_key, read_verdicts
from cots.errors import BadInput
from cots.index.nearest_captions import NearestCaptions
from cots.service.review.app import create_review_app
from cots.service.review.judging import JudgingRound
from tests.browser import needs_chromium, open_page, violations
from tests.conftest import Cots

from .conftest import Served, running

RED, GREEN, VIDEO = "train-image-red", "train-image-green", "train-video-blue"
ALL_SHOWN = "[...document.querySelectorAll('#frames img')].every((image) => image.naturalWidth > 0)"


PAIRS = pd.DataFrame([(RED, 0, -0.2, 3, 3), (GREEN, 0, -0.1, 4, 2), (VIDEO, 0, 0.0, 1, 1)], columns=PAIR_COLUMNS)


def make_round(tiny_data: Path, verdicts: Path, index: Path | None, shards: Path | None = None) -> JudgingRound:
    """The first caption of a red and a green image, and that of a blue video."""
    manifest = read_manifest(tiny_data / "manifest.parquet")
    suspects = find_suspects(PAIRS, manifest)
    nearest = NearestCaptions.load(index) if index else None
    return JudgingRound(suspects, manifest, shards or tiny_data / "shards", verdicts, nearest)


@pytest.fixture
def verdicts(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.csv"


@pytest.fixture
def review(tiny_data: Path, mixed_package: Path, verdicts: Path) -> Iterator[Served]:
    with running(create_review_app(make_round(tiny_data, verdicts, mixed_package.parent / "index"))) as served:
        yield served


@pytest.fixture
def opened(browser: Browser, review: Served) -> Iterator[Page]:
    yield from open_page(browser, review.url)


def caption(page: Page, text: str) -> None:
    """Wait until the page shows a pair."""
    expect(page.locator("#caption")).to_have_text(text)


@pytest.mark.slow
@needs_chromium
def test_pairs_are_judged_by_key_and_each_verdict_is_on_the_disk_at_once(
    opened: Page, review: Served, verdicts: Path
) -> None:
    red, green, blue = (f"a {colour} square in train" for colour in ("red", "green", "blue"))
    caption(opened, red)
    expect(opened.locator("#question")).to_have_text("Does this caption describe the image?")
    expect(opened.locator("#facts")).to_contain_text("similarity in training -0.200dropped in 3 of 3 steps")
    expect(opened.locator("#facts")).to_contain_text(RED)
    expect(opened.locator("#others-list")).to_have_text("one red & <plain> image")
    expect(opened.locator("#nearest-list li")).to_have_count(6)  # five captions of others, and this one among them
    expect(opened.locator("#nearest-list li.this")).to_contain_text(red)
    review.until(lambda: bool(opened.evaluate(ALL_SHOWN)))
    opened.keyboard.press("r")
    caption(opened, green)
    assert read_verdicts(verdicts) == {pair_key(RED, red): "rejected"}
    opened.keyboard.press("A")
    caption(opened, blue)
    expect(opened.locator("#frames img")).to_have_count(3)
    expect(opened.locator("#status")).to_have_text("2 of 3 judged, 1 rejected")
    opened.keyboard.press("u")
    caption(opened, green)
    assert read_verdicts(verdicts) == {pair_key(RED, red): "rejected"}
    opened.keyboard.press("ArrowLeft")
    caption(opened, red)
    expect(opened.locator("#verdict")).to_have_text("You rejected this pair.")
    opened.keyboard.press("a")
    caption(opened, green)
    opened.reload()
    caption(opened, green)
    opened.keyboard.press("ArrowRight")
    caption(opened, blue)
    opened.get_by_role("button", name="Reject").click()
    caption(opened, green)
    opened.keyboard.press("r")
    expect(opened.locator("#done")).to_be_visible()
    assert read_verdicts(verdicts) == {
        pair_key(RED, red): "accepted",
        pair_key(VIDEO, blue): "rejected",
        pair_key(GREEN, green): "rejected",
    }
    opened.keyboard.press("u")
    caption(opened, green)
    expect(opened.locator("#status")).to_have_text("2 of 3 judged, 1 rejected")


@pytest.mark.slow
@needs_chromium
def test_a_verdict_that_cannot_be_written_is_told_and_the_pair_stays(opened: Page, verdicts: Path) -> None:
    caption(opened, "a red square in train")
    verdicts.write_text("<<<<<<< HEAD\n")
    opened.keyboard.press("r")
    expect(opened.locator("#trouble")).to_contain_text("is not a list of verdicts")
    caption(opened, "a red square in train")
    verdicts.unlink()
    opened.get_by_role("button", name="Load this pair again").click()
    expect(opened.locator("#trouble")).to_be_hidden()
    opened.keyboard.press("r")
    caption(opened, "a green square in train")


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_and_a_phone_needs_no_scrolling_sideways(
    browser: Browser, review: Served, scheme: str, width: int
) -> None:
    for page in open_page(browser, review.url, color_scheme=scheme):
        page.set_viewport_size({"width": width, "height": 800})
        caption(page, "a red square in train")
        states = {"pair": violations(page)}
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for text in ("green", "blue"):
            page.keyboard.press("a")
            caption(page, f"a {text} square in train")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#verdict")).to_be_visible()
        states["judged"] = violations(page)
        page.route("**/pairs/*", lambda route: route.fulfill(status=503, json={"error": "it failed"}))
        page.keyboard.press("a")
        expect(page.locator("#trouble")).to_be_visible()
        states["trouble"] = violations(page)
        page.unroute_all()
        page.get_by_role("button", name="Load this pair again").click()
        expect(page.locator("#trouble")).to_be_hidden()
        page.keyboard.press("ArrowRight")
        caption(page, "a blue square in train")
        page.keyboard.press("a")
        expect(page.locator("#done")).to_be_visible()
        states["done"] = violations(page)
        assert {state: faults for state, faults in states.items() if faults} == {}


def test_no_page_of_another_host_can_judge_and_a_body_must_be_json(review: Served, verdicts: Path) -> None:
    verdict = {"verdict": "rejected"}
    refused = [
        review.client.post("/pairs/0", json=verdict, headers={"Origin": "http://elsewhere.example"}),
        review.client.post("/pairs/0", json=verdict, headers={"Host": "elsewhere.example"}),
        review.client.get("/pairs/0", headers={"Host": "elsewhere.example"}),
        review.client.post("/pairs/0", content='{"verdict": "rejected"}', headers={"Content-Type": "text/plain"}),
        review.client.post("/pairs/0", json={"verdict": "perhaps"}),
        review.client.post("/pairs/0", json={"verdict": "rejected", "more": "x" * 2000}),
        review.client.post("/pairs/3", json=verdict),
        review.client.get("/pairs/0/1"),
    ]
    assert [answer.status_code for answer in refused] == [403, 400, 400, 422, 422, 413, 404, 404]
    assert not verdicts.exists()
    page = review.client.get("/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    own = {"Origin": review.url}
    assert review.client.post("/pairs/0", json=verdict, headers=own).json()["next"] == 1


def test_without_an_index_pairs_are_judged_without_captions_to_compare_with(tiny_data: Path, verdicts: Path) -> None:
    judging = make_round(tiny_data, verdicts, None)
    assert judging.pair(0)["similarity"] is None
    assert judging.pair(0)["nearest"] == []
    judging.judge(0, "accepted")
    assert judging.progress() == {"total": 3, "accepted": 1, "rejected": 0, "last": 0, "next": 1}


def test_the_nearest_captions_are_those_of_a_search_without_the_samples_own(
    mixed_package: Path, served: Served
) -> None:
    nearest = NearestCaptions.load(mixed_package.parent / "index")
    own = [f"a red square in {split}" for split in ("train", "val")]
    captions = nearest.nearest(RED, own, 3)
    assert len(captions) == 3
    assert not {text for text, _ in captions} & set(own)
    assert [score for _, score in captions] == sorted((score for _, score in captions), reverse=True)
    text, score = captions[0]
    hits = served.search(text=text, k=100, media="any")["results"]
    assert next(hit["score"] for hit in hits if hit["id"] == RED) == pytest.approx(score, abs=1e-3)
    assert nearest.similarity(RED, text) == pytest.approx(score, abs=1e-5)
    assert nearest.similarity(RED, "no such caption") is None
    assert nearest.nearest("no such sample", [], 3) == []


def test_a_damaged_index_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be used"):
        NearestCaptions.load(tmp_path)


def test_a_shard_that_is_gone_is_told(tiny_data: Path, tmp_path: Path, verdicts: Path) -> None:
    with running(create_review_app(make_round(tiny_data, verdicts, None, shards=tmp_path))) as served:
        answer = served.client.get("/pairs/0/0")
        assert answer.status_code == 503
        assert "no shard" in answer.json()["error"]


@pytest.fixture
def arguments(tiny_data: Path, tmp_path: Path) -> list[str]:
    """Of `cots suspects` in a folder that has no project."""
    PAIRS.to_parquet(tmp_path / "pairs.parquet")
    manifest, shards = tiny_data / "manifest.parquet", tiny_data / "shards"
    return [
        "suspects", "--pairs", str(tmp_path / "pairs.parquet"), "--manifest", str(manifest), "--shards", str(shards)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_round_from_the_command_line_ends_with_what_was_decided_and_is_not_repeated(
    cots: Cots, arguments: list[str], tmp_path: Path, fork_python: str
) -> None:
    command = [fork_python, "-m", "cots", *arguments, "--review", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stderr
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
        assert address
        assert httpx.post(f"{address[0]}/pairs/1", json={"verdict": "accepted"}, timeout=20).status_code == 200
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "no index index: pairs are shown without captions to compare with" in out
    assert out.endswith("1 accepted, 0 rejected, in verdicts.csv: commit it\n")
    assert not (tmp_path / "suspects.csv").exists()
    with chdir(tmp_path):
        code, out, _ = cots(*arguments)
        assert code == 0
        assert "2 of 3 pairs, written to suspects.csv" in out
        assert GREEN not in out


@pytest.mark.parametrize("lists", ["", " changes.jsonl", " changes.jsonl verdicts.csv"])
def test_a_pipeline_that_reads_no_verdicts_is_told_before_anybody_judges(
    cots: Cots, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(f"stages: {{prepare: {{cmd: python -m cots.stages.prepare a.csv{lists}}}}}\n")
    code, _, error = cots(*arguments, "--review")
    assert code == 2
    assert (
        "end `cmd` of stage prepare with `verdicts.csv changes.jsonl` and that of validate with `verdicts.csv`" in error
    )


def test_where_all_are_judged_no_page_is_shown(
    cots: Cots, arguments: list[str], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judging = make_round(tiny_data, tmp_path / "verdicts.csv", None)
    for number in range(len(judging)):
        judging.judge(number, "accepted")
    assert cots(*arguments, "--review")[:2] == (0, "no suspects that nobody has judged\n")
