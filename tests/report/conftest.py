"""A headless Chromium, started once, and the folders of reports that it opens from disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from PIL import Image
from report_cases import HTML, noise, write_page

from d4k.report import openseadragon

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIDE = 2048
PROMPTS = (
    "a castle on a hill",
    HTML,
    "a river",
    None,
    *(f"prompt number {i} of a river" for i in range(4, 59)),
    "the last one",
)


@pytest.fixture(scope="session")
def pixels() -> dict[str, Image.Image]:
    """Three pictures of which every pixel has a colour of its own; the last two are alike but for their left half."""
    photograph, one = noise(SIDE, 0), noise(SIDE, 1)
    other = one.copy()
    other.paste(noise(SIDE, 2).crop((0, 0, SIDE // 2, SIDE)), (0, 0))
    return {"Photographs": photograph, "Run A": one, "Run B": other}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, pixels: dict[str, Image.Image]) -> Path:
    """A report of 60 rows and three sets."""
    try:
        openseadragon.locate()
    except openseadragon.OpenSeadragonError as error:
        pytest.skip(f"{error}")
    place = tmp_path_factory.mktemp("report") / "report"
    write_page(place, {name: [image] for name, image in pixels.items()}, PROMPTS)
    return place


@pytest.fixture(scope="module")  # playwright keeps an event loop running, which tests of other modules may mind
def browser() -> Iterator[Any]:
    """Chromium; tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium, chromium-browser or google-chrome on the PATH")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--force-color-profile=srgb"]
        )
        yield chromium
        chromium.close()


@define
class Opened:
    """A page, and what went on in it."""

    page: Any
    folder: Path
    requests: list[str] = field(factory=list)
    complaints: list[str] = field(factory=list)

    def go(self, hash_: str) -> Any:
        """Load the report anew at a place in it. Returns the page."""
        self.page.goto("about:blank")
        self.page.goto(f"{(self.folder / 'index.html').as_uri()}{hash_}")
        return self.page

    def settle(self, panes: str = "d4k.views.view.panes") -> None:
        """Wait until nothing moves, and all tiles are there."""
        self.page.wait_for_function(
            f"""() => {{
                const shown = {panes} && {panes}.panes.filter((pane) => pane.viewer);
                return shown && shown.length && shown.every(({{ ready, viewer }}) => ready && !viewer.isAnimating()
                    && viewer.world.getItemAt(0).getFullyLoaded() && viewer.viewport.zoomSpring.isAtTargetValue());
            }}"""
        )
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@define
class Pages:
    """Pages of a browser that are opened once and used again: opening one costs more than most tests."""

    browser: Any
    free: dict[str, list[Any]] = field(factory=dict)

    def take(self, **options: Any) -> Any:
        """A page with nothing kept in it."""
        waiting = self.free.setdefault(repr(sorted(options.items())), [])
        page = waiting.pop() if waiting else self.browser.new_context(**options).new_page()
        page.set_default_timeout(30_000)  # a busy machine
        return page

    def give(self, page: Any, **options: Any) -> None:
        """Back, for another test."""
        page.evaluate("localStorage.clear()")
        page.goto("about:blank")
        self.free[repr(sorted(options.items()))].append(page)


@pytest.fixture(scope="module")
def pages(browser: Any) -> Pages:
    """One for the tests of a module."""
    return Pages(browser)


@pytest.fixture
def open_page(pages: Pages, folder: Path) -> Iterator[Callable[..., Opened]]:
    """`open_page("#view", width=390, ...)`: a page. At the end it must not have complained, nor asked outside."""
    opened: list[tuple[Opened, dict[str, Any], list[tuple[str, Any]]]] = []

    def make(hash_: str = "", *, width: int = 1200, height: int = 800, place: Path = folder, **more: Any) -> Opened:
        options = {"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", **more}
        found = Opened(pages.take(**options), place)
        listeners: list[tuple[str, Any]] = [
            ("request", lambda request: found.requests.append(request.url)),
            ("console", lambda message: found.complaints.append(f"{message.type}: {message.text}")),
            ("pageerror", lambda error: found.complaints.append(f"error: {error}")),
        ]
        for event, listener in listeners:
            found.page.on(event, listener)
        opened.append((found, options, listeners))
        found.go(hash_)
        return found

    yield make
    for found, options, listeners in opened:
        pages.give(found.page, **options)
        for event, listener in listeners:
            found.page.remove_listener(event, listener)
    for found, _, _ in opened:
        inside = found.folder.as_uri() + "/"
        strange = [url for url in found.requests if not url.startswith((inside, "data:", "blob:", "about:"))]
        assert strange == []
        assert found.complaints == []
