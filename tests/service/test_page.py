"""The search page in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cots.service.middleware import RequestLimits

from .conftest import LIMITS, Served, encoded, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, served: Served) -> Iterator[Page]:
    yield from open_page(browser, served.url)


def open_page(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """Open the page; it must raise no error, keep its content policy, and request no other host."""
    with browser.new_context(viewport={"width": 1280, "height": 800}, **context) as within:
        page = within.new_page()
        page.set_default_timeout(10_000)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
        page.on(
            "request", lambda request: None if request.url.startswith((url, "blob:")) else wrong.append(request.url)
        )
        page.goto(url)
        yield page
        assert wrong == []


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
    expect(opened.locator("#status")).to_contain_text(answer["versions"]["index"]["version"])
    expect(opened.locator("#status")).to_contain_text("24 results in ")
    served.until(lambda: opened.evaluate(ALL_SHOWN))
    assert all(image.get_attribute("alt") for image in opened.locator(".card img").all())


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
    opened.locator("#more").click()
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
    third.locator(".thumbnail").click()
    expect(opened.locator("#like")).to_be_visible()
    colour = next(name for name in ("red", "green", "blue", "yellow", "white", "black") if name in words)
    expect(cards(opened).first.locator(".caption")).to_contain_text(colour)
    expect(cards(opened).first.locator(".score")).to_have_text("1.000")


def test_a_result_leads_to_its_lineage(opened: Page, served: Served) -> None:
    opened.locator("#text").fill("a blue square")
    link = cards(opened).first.locator("a")
    item = served.client.get("/" + (link.get_attribute("href") or "")).json()["item"]
    assert cards(opened).first.locator(".caption").inner_text() == item["captions"][0]
    link.click()
    expect(opened.locator("#lineage")).to_be_visible()
    expect(opened.locator("#lineage")).to_contain_text(item["id"])
    expect(opened.locator("#lineage")).to_contain_text("cots-index folder-")
    opened.keyboard.press("Escape")
    expect(opened.locator("#lineage")).to_be_hidden()
    expect(cards(opened)).to_have_count(24)


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
    expect(opened.locator("#like")).to_be_visible()
    expect(cards(opened).nth(0).locator(".thumbnail")).to_be_focused()
    opened.keyboard.press("Escape")
    expect(opened.locator("#text")).to_be_focused()
    opened.keyboard.press("Escape")
    expect(opened.locator("#intro")).to_be_visible()


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
    cards(opened).first.locator("a").click()
    expect(opened.locator("#lineage")).to_be_visible()
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
            cards(page).first.locator("a").click()
            expect(page.locator("#lineage")).to_contain_text("cots-index folder-")
