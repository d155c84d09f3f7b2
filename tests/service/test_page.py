"""The search page in a real browser."""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from cots.service.middleware import RequestLimits
from tests.browser import needs_chromium, open_page, violations

from .conftest import LIMITS, Served, encoded, serving

pytestmark = [pytest.mark.slow, needs_chromium]
SECRET = "a-secret-of-enough-characters"
# The page's policy forbids `eval`, and with it Playwright's own way of waiting for a condition.
ALL_SHOWN = "[...document.querySelectorAll('.card img')].every((image) => image.naturalWidth > 0)"
DROP = """([bytes, type]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
    document.dispatchEvent(type === "paste"
        ? new ClipboardEvent(type, { clipboardData: transfer })
        : new DragEvent(type, { dataTransfer: transfer, cancelable: true }));
}"""


@pytest.fixture
def opened(browser: Browser, served: Served) -> Iterator[Page]:
    yield from open_page(browser, served.url)


def cards(page: Page) -> Any:
    return page.locator("#results .card")


def test_results_come_as_one_types_with_scores_and_the_versions_that_answered(opened: Page, served: Served) -> None:
    expect(opened.locator("#intro")).to_be_visible()
    opened.locator("#text").press_sequentially("a blue square", delay=15)
    expect(cards(opened)).to_have_count(24)
    expect(opened.locator("#intro")).to_be_hidden()
    answer = served.search(text="a blue square", k=24)
    scores = opened.locator(".score").all_inner_texts()
    assert list(map(float, scores)) == pytest.approx([hit["score"] for hit in answer["results"]], abs=0.01)
    assert opened.locator(".rank").all_inner_texts() == [str(rank) for rank in range(1, 25)]
    expect(opened.locator("#versions")).to_contain_text(answer["versions"]["index"]["version"])
    expect(opened.locator("#status")).to_contain_text("First 24 results in ")
    served.until(lambda: opened.evaluate(ALL_SHOWN))
    captions = [hit["captions"][hit["best_caption"]] for hit in answer["results"]]
    assert opened.locator(".caption").all_inner_texts() == captions


def test_images_videos_and_captions_can_be_chosen(opened: Page) -> None:
    opened.locator("#text").fill("a blue square")
    expect(cards(opened)).to_have_count(24)
    opened.get_by_label("Videos").check()
    expect(cards(opened)).to_have_count(9)
    expect(opened.locator(".badge:visible")).to_have_count(9)
    opened.get_by_label("Images").check()
    expect(cards(opened)).to_have_count(18)
    expect(opened.locator(".badge:visible")).to_have_count(0)
    opened.get_by_label("Captions").check()
    expect(opened.locator("#results.texts .card")).to_have_count(24)
    opened.locator("#more").dispatch_event("click")  # a real one scrolls, and the page then loads more by itself
    expect(cards(opened)).to_have_count(27)
    expect(opened.locator("#more")).to_be_hidden()
    assert "media=text" in opened.url
    opened.reload()
    expect(opened.locator("#text")).to_have_value("a blue square")
    expect(opened.locator("#results.texts .card")).to_have_count(24)


@pytest.mark.parametrize("way", ["drop", "paste", "pick"])
def test_an_image_can_be_searched_for(opened: Page, way: str) -> None:
    if way == "pick":
        opened.locator("#file").set_input_files(
            {"name": "mine.png", "mimeType": "image/png", "buffer": encoded("blue")}
        )
    else:
        opened.evaluate(DROP, [list(encoded("blue")), way])
    expect(opened.locator("#like")).to_contain_text("mine.png")
    expect(cards(opened).first.locator(".caption")).to_contain_text("blue")
    expect(cards(opened)).to_have_count(24)
    opened.get_by_label("Remove the image").click()
    expect(opened.locator("#intro")).to_be_visible()
    expect(cards(opened)).to_have_count(0)


def test_more_like_this_looks_for_the_result_itself(opened: Page) -> None:
    opened.locator("#text").fill("a blue square")
    opened.get_by_label("Images").check()
    expect(cards(opened)).to_have_count(18)
    third = cards(opened).nth(2)
    words = third.locator(".caption").inner_text()
    third.locator(".similar").click()
    expect(opened.locator("#like")).to_be_visible()
    colour = next(name for name in ("red", "green", "blue", "yellow", "white", "black") if name in words)
    expect(cards(opened).first.locator(".caption")).to_contain_text(colour)
    expect(cards(opened).first.locator(".score")).to_have_text("1.000")


def enlarge(page: Page, number: int) -> Any:
    """Open a result, from 0, and wait for its image."""
    cards(page).nth(number).locator(".thumbnail").click()
    expect(page.locator("#viewer-image[src^=blob]")).to_be_visible()
    return page.locator("#viewer")


def test_a_result_is_enlarged_with_its_captions_and_its_lineage(opened: Page, served: Served) -> None:
    opened.locator("#text").fill("a blue square")
    expect(cards(opened)).to_have_count(24)
    hits = served.search(text="a blue square", k=24)["results"]
    viewer = enlarge(opened, 0)
    for caption in hits[0]["captions"]:
        expect(viewer).to_contain_text(caption)
    with opened.expect_download() as download:
        opened.locator("#viewer-save").click()
    assert download.value.suggested_filename.startswith(hits[0]["id"])
    assert Path(download.value.path()).read_bytes()[:3] == b"\xff\xd8\xff"
    opened.locator("#viewer-lineage summary").click()
    expect(viewer).to_contain_text(hits[0]["id"])
    expect(viewer).to_contain_text("cots-index folder-")
    expect(opened.locator("#viewer-previous")).to_be_disabled()
    opened.keyboard.press("ArrowRight")
    expect(opened.locator("#viewer-facts")).to_contain_text("Rank2")
    expect(opened.locator("#viewer-previous")).to_be_enabled()
    opened.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(cards(opened).first.locator(".thumbnail")).to_be_focused()
    expect(cards(opened)).to_have_count(24)


def is_shown_at(page: Page, width: int) -> bool:
    return bool(page.evaluate("document.getElementById('viewer-image').naturalWidth") == width)


def test_an_original_takes_the_place_of_the_stored_image(
    browser: Browser, package_of_photos: Path, photos: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(photos, tmp_path / "source", symlinks=True)
    (folder / "in.png").unlink()
    (folder / "in.png").write_bytes(encoded("blue", "TIFF"))  # Chromium shows no TIFF
    with serving(package_of_photos, source=folder) as served:
        results = served.search(text="a", k=6)["results"]
        rows = {hit["id"]: number for number, hit in enumerate(results)}
        for page in open_page(browser, served.url):
            page.locator("#text").fill("a")
            expect(cards(page)).to_have_count(6)
            for name, width, note in (
                ("red.png", 400, ""),
                ("sub/green.jpg", 200, ""),  # upright
                ("in.png", 24, "This browser cannot show the original."),
                ("text.png", 24, "This is the stored thumbnail: the original of item 5 cannot be given: not a picture"),
            ):
                enlarge(page, rows[name])
                expect(page.locator("#viewer-note")).to_contain_text(note)
                served.until(partial(is_shown_at, page, width))
                save = page.locator("#viewer-save")
                expect(save).to_have_text("Save image" if name == "text.png" else "Save original")
                if name == "sub/green.jpg":
                    with page.expect_download() as download:
                        save.click()
                    assert download.value.suggested_filename == "green.jpg"
                    assert Path(download.value.path()).read_bytes() == (photos / name).read_bytes()
                page.keyboard.press("Escape")


def test_a_video_plays_until_it_is_paused(opened: Page, served: Served) -> None:
    opened.locator("#text").fill("a blue square")
    opened.get_by_label("Videos").check()
    expect(cards(opened)).to_have_count(9)
    frame = served.search(text="a blue square", media="video")["results"][0]["frame"]
    enlarge(opened, 0)
    expect(opened.locator("#viewer-number")).to_have_text(f"{frame + 1} of 3")
    expect(opened.locator("#viewer-number")).to_have_text(f"{(frame + 1) % 3 + 1} of 3")
    opened.get_by_role("button", name="Pause").click()
    opened.get_by_label("Frame", exact=True).fill("2")
    expect(opened.locator("#viewer-number")).to_have_text("3 of 3")
    expect(opened.locator("#viewer-play")).to_have_text("Play")


def test_a_lineage_shows_the_metrics_of_the_directions_that_it_has(opened: Page, served: Served) -> None:
    opened.locator("#text").fill("a blue square")
    address = served.search(text="a blue square", k=1)["results"][0]["lineage"]
    names = ["chance.t2v.R1", "folds.t2v.R1", "rsum", "t2v.R1", "t2v.R5", "v2t.R1"]
    lineage = served.client.get(address).json() | {"metrics": dict.fromkeys(names, "41.5")}
    opened.route(f"**{address}", lambda route: route.fulfill(json=lineage))
    enlarge(opened, 0)
    opened.locator("#viewer-lineage summary").click()
    shown = opened.locator("#viewer-lineage dt", has_text=re.compile("rsum|R1|R5"))
    expect(shown).to_have_text(["rsum", "t2v.R1", "v2t.R1"])


def test_back_and_forward_go_from_query_to_query(opened: Page) -> None:
    opened.locator("#text").press_sequentially("a blue square", delay=5)
    expect(cards(opened)).to_have_count(24)
    assert "q=a+blue+square" in opened.url
    opened.get_by_label("Videos").check()
    expect(cards(opened)).to_have_count(9)
    cards(opened).nth(1).locator(".similar").click()
    expect(opened.locator("#like")).to_be_visible()
    expect(cards(opened).first.locator(".score")).to_have_text(re.compile(r"^0\.99|^1\.000"))
    address = opened.url
    opened.go_back()
    expect(opened.locator("#like")).to_be_hidden()
    expect(opened.locator("#text")).to_have_value("a blue square")
    expect(cards(opened)).to_have_count(9)
    opened.go_back()
    expect(cards(opened)).to_have_count(24)
    opened.go_back()
    expect(opened.locator("#intro")).to_be_visible()
    opened.goto(address)  # as a link that somebody was sent
    opened.reload()
    expect(opened.locator("#like")).to_be_visible()
    expect(cards(opened)).to_have_count(9)


def test_more_results_come_on_scrolling(opened: Page) -> None:
    opened.locator("#text").fill("a blue square")
    expect(cards(opened)).to_have_count(24)
    opened.mouse.wheel(0, 5000)
    expect(cards(opened)).to_have_count(27)
    expect(opened.locator("#status")).to_contain_text("27 results")
    assert opened.locator(".rank").all_inner_texts() == [str(rank) for rank in range(1, 28)]


def test_where_another_version_answers_in_the_meantime_the_query_is_sent_again(opened: Page) -> None:
    opened.locator("#text").fill("a blue square")
    expect(cards(opened)).to_have_count(24)
    gone = {"status": 410, "content_type": "application/json", "body": '{"error": "version 1 is gone"}'}
    bodies: list[str] = []

    def refuse_cursors(route: Any) -> None:
        bodies.append(route.request.post_data)
        route.fulfill(**gone) if "cursor" in bodies[-1] else route.continue_()

    opened.route("**/search", refuse_cursors)
    with opened.expect_response(lambda response: response.url.endswith("/search") and response.ok):
        opened.locator("#more").click()
    assert "cursor" in bodies[0]
    assert '"text":"a blue square"' in bodies[-1]
    expect(opened.locator("#trouble")).to_be_hidden()


def test_an_image_a_text_and_minus_words_are_one_query(opened: Page) -> None:
    opened.evaluate(DROP, [list(encoded("blue")), "drop"])
    expect(cards(opened)).to_have_count(24)
    with opened.expect_request("**/search") as request:
        opened.locator("#text").fill('at night -red -"a green square" t-shirt')
    body = request.value.post_data_json or {}
    assert body["text"] == "at night t-shirt"
    assert body["minus"] == ["red", "a green square"]
    assert body["image"]
    expect(opened.locator("#like")).to_be_visible()
    expect(opened.locator("#status")).to_contain_text("without red, a green square")


def test_results_are_filtered_by_columns(opened: Page) -> None:
    opened.locator("#text").fill("a blue square")
    expect(cards(opened)).to_have_count(24)
    opened.locator("#filters summary").click()
    opened.get_by_label("split").select_option("val")
    expect(cards(opened)).to_have_count(9)
    expect(opened.locator("#filters summary")).to_contain_text("Filters (1)")
    assert "where.split=val" in opened.url
    opened.reload()
    expect(cards(opened)).to_have_count(9)


def test_the_keyboard_alone_is_enough(opened: Page) -> None:
    opened.locator("body").click()
    opened.keyboard.press("/")
    expect(opened.locator("#text")).to_be_focused()
    expect(opened.locator("#text")).to_have_value("")
    opened.keyboard.type("a red square")
    opened.keyboard.press("Enter")
    expect(cards(opened)).to_have_count(24)
    opened.keyboard.press("ArrowDown")
    expect(cards(opened).nth(0).locator(".thumbnail")).to_be_focused()
    outline = opened.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    opened.keyboard.press("ArrowRight")
    expect(cards(opened).nth(1).locator(".thumbnail")).to_be_focused()
    opened.keyboard.press("ArrowDown")
    columns = opened.evaluate("getComputedStyle(document.querySelector('#results')).gridTemplateColumns").split(" ")
    expect(cards(opened).nth(1 + len(columns)).locator(".thumbnail")).to_be_focused()
    opened.keyboard.press("Enter")
    expect(opened.locator("#viewer-like")).to_be_focused()
    opened.keyboard.press("Enter")
    expect(opened.locator("#like")).to_be_visible()
    expect(cards(opened).nth(0).locator(".thumbnail")).to_be_focused()
    opened.keyboard.press("Escape")
    expect(opened.locator("#text")).to_be_focused()
    opened.keyboard.press("Escape")
    expect(opened.locator("#intro")).to_be_visible()


def test_an_answer_that_comes_while_someone_is_among_the_results_leaves_them_there(opened: Page) -> None:
    opened.locator("#text").fill("a red squar")
    expect(cards(opened)).to_have_count(24)
    pending: list[Any] = []
    opened.route("**/search", lambda route: pending.append(route))
    opened.locator("#text").press("e")
    expect(opened.locator("#progress")).to_be_visible()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowRight")
    before = cards(opened).nth(1).element_handle()
    pending[0].continue_()
    expect(opened.locator("#progress")).to_be_hidden()
    assert not before.evaluate("card => card.isConnected")
    expect(cards(opened).nth(1).locator(".thumbnail")).to_be_focused()
    opened.unroute_all(behavior="ignoreErrors")


def test_an_answer_that_comes_late_does_not_replace_a_newer_one(opened: Page) -> None:
    pending: list[Any] = []
    opened.route("**/search", lambda route: pending.append(route) if not pending else route.continue_())
    opened.locator("#text").fill("a red square")
    expect(opened.locator("#results")).to_have_attribute("aria-busy", "true")
    expect(opened.locator("#progress")).to_be_visible()
    opened.locator("#text").fill("a blue square in val")
    opened.get_by_label("Captions").check()
    expect(cards(opened).first.locator(".caption")).to_contain_text("blue")
    opened.unroute_all(behavior="ignoreErrors")
    expect(cards(opened).first.locator(".caption")).to_contain_text("blue")
    expect(opened.locator("#progress")).to_be_hidden()


def test_a_busy_service_is_reported_and_can_be_queried_again(opened: Page) -> None:
    busy = {"status": 429, "content_type": "application/json", "body": '{"error": "9 queries are being answered"}'}
    opened.route("**/search", lambda route: route.fulfill(**busy))
    opened.locator("#text").fill("a red square")
    expect(opened.locator("#trouble")).to_contain_text("9 queries are being answered")
    expect(cards(opened)).to_have_count(0)
    opened.unroute("**/search")
    opened.get_by_role("button", name="Try again").click()
    expect(cards(opened)).to_have_count(24)
    expect(opened.locator("#trouble")).to_be_hidden()


def test_an_image_over_the_limit_is_reported(browser: Browser, mixed_package: Path) -> None:
    small = RequestLimits(body=LIMITS.body, pixels=1000, in_flight=8, seconds=5)
    with serving(mixed_package, limits=small) as served:
        for page in open_page(browser, served.url):
            page.evaluate(DROP, [list(encoded("blue")), "drop"])
            expect(page.locator("#trouble")).to_contain_text("The image cannot be used: too many pixels: 40 x 32")


@pytest.mark.parametrize("width", [320, 360, 390])
def test_a_phone_needs_no_scrolling_sideways(opened: Page, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 740})
    wide = "document.documentElement.scrollWidth"
    assert opened.evaluate(wide) == width
    opened.locator("#text").fill("a blue square")
    expect(cards(opened)).to_have_count(24)
    assert opened.evaluate(wide) == width
    box = cards(opened).nth(1).bounding_box()
    assert box
    assert box["x"] + box["width"] <= width
    opened.get_by_label("Captions").check()
    expect(opened.locator("#results.texts .card")).to_have_count(24)
    assert opened.evaluate(wide) == width
    enlarge(opened, 0)
    opened.locator("#viewer-lineage summary").click()
    expect(opened.locator("#viewer-lineage")).to_contain_text("cots-index")
    assert opened.evaluate(wide) == width


def test_dark_is_dark_and_light_is_light(browser: Browser, served: Served) -> None:
    for scheme, dark in (("dark", True), ("light", False)):
        for page in open_page(browser, served.url, color_scheme=scheme):
            colours = page.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            )
            paper, ink = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
            assert (paper < ink) is dark
            assert abs(paper - ink) > 500  # of 765: words can be read


def test_a_token_is_asked_for_once_and_previews_need_it_too(browser: Browser, mixed_package: Path) -> None:
    with serving(mixed_package, token=SECRET) as served:
        for page in open_page(browser, served.url):
            page.locator("#text").fill("a blue square")
            expect(page.locator("#token")).to_be_visible()
            page.locator("#token-value").fill(SECRET)
            page.keyboard.press("Enter")
            expect(cards(page)).to_have_count(24)
            served.until(lambda page=page: page.evaluate(ALL_SHOWN))  # type: ignore[misc]
            page.reload()
            expect(cards(page)).to_have_count(24)
            enlarge(page, 0)
            page.locator("#viewer-lineage summary").click()
            expect(page.locator("#viewer-lineage")).to_contain_text("cots-index folder-")


@pytest.fixture(scope="session")
def nothing_fits(mixed_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service whose index finds that no text fits."""
    copy = shutil.copytree(mixed_package, tmp_path_factory.mktemp("fit") / "package")
    (copy / "artifacts" / "index" / "fit.json").write_text('{"min_score": 2, "media": "image"}')
    with serving(copy, source=copy) as served:  # where no original is
        yield served


def test_where_nothing_fits_well_the_page_says_so(browser: Browser, nothing_fits: Served) -> None:
    for page in open_page(browser, nothing_fits.url):
        page.locator("#text").fill("a blue square")
        expect(page.locator("#weak")).to_have_text("Nothing here fits well. These results are the nearest.")
        page.get_by_label("Captions").check()
        expect(page.locator("#results.texts .card")).to_have_count(24)
        expect(page.locator("#weak")).to_be_hidden()


def test_the_first_page_names_queries_to_begin_with(opened: Page, served: Served) -> None:
    overview = served.client.get("/overview").json() | {"samples": ["a red square in val"]}
    opened.route("**/overview", lambda route: route.fulfill(json=overview))
    opened.reload()
    opened.get_by_role("button", name="a red square in val").click()
    expect(opened.locator("#text")).to_have_value("a red square in val")
    expect(cards(opened)).to_have_count(24)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_in_any_state(browser: Browser, nothing_fits: Served, width: int, scheme: str) -> None:
    for page in open_page(browser, nothing_fits.url, color_scheme=scheme, reduced_motion="reduce"):
        page.set_viewport_size({"width": width, "height": 800})
        expect(page.locator("#filters")).to_be_visible()
        states = {"first": violations(page)}
        page.locator("#filters summary").click()
        page.locator("#text").fill("a blue square -red")
        expect(cards(page)).to_have_count(24)
        states["results"] = violations(page)
        page.locator("#text").fill("a blue square")
        expect(page.locator("#weak")).to_be_visible()
        states["weak"] = violations(page)
        page.get_by_label("Images").check()
        expect(cards(page)).to_have_count(18)
        enlarge(page, 0)
        expect(page.locator("#viewer-note")).to_contain_text("This is the stored thumbnail")
        states["original"] = violations(page)
        page.keyboard.press("Escape")
        page.get_by_label("Videos").check()
        expect(cards(page)).to_have_count(9)
        enlarge(page, 0)
        page.locator("#viewer-lineage summary").click()
        expect(page.locator("#viewer-lineage")).to_contain_text("cots-index")
        states["viewer"] = violations(page)
        page.keyboard.press("Escape")
        page.get_by_label("Captions").check()
        expect(page.locator("#results.texts .card")).to_have_count(24)
        states["captions"] = violations(page)
        page.route("**/search", lambda route: None)  # no answer comes
        page.locator("#text").fill("a blue")
        expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
        states["waiting"] = violations(page)
        page.unroute("**/search")
        page.evaluate(DROP, [list(encoded("blue")), "drop"])
        expect(page.locator("#like")).to_be_visible()
        states["image"] = violations(page)
        page.route("**/search", lambda route: route.fulfill(status=401, json={"error": "token required"}))
        page.locator("#text").fill("a")
        expect(page.locator("#token")).to_be_visible()
        states["token"] = violations(page)
        page.route("**/search", lambda route: route.fulfill(status=500, json={"error": "it failed"}))
        page.keyboard.press("Escape")
        page.locator("#text").fill("ab")
        expect(page.locator("#trouble")).to_be_visible()
        states["trouble"] = violations(page)
        assert {state: found for state, found in states.items() if found} == {}
