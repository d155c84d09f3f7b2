"""Pages in the machine's own Chromium."""

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def open_page(browser: "Browser", url: str, **context: Any) -> Iterator["Page"]:
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


def violations(page: "Page") -> list[str]:
    """What axe finds on the page as it is."""
    package = find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        pytest.skip("no axe-playwright-python: install the extra `dev`")
    page.evaluate((Path(package.origin).parent / "axe.min.js").read_text(encoding="utf8"))
    faults = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html']}" for fault in faults]
