"""The viewer of a report in a real browser, opened from disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_cases import PANES, Open, prompts, shot, spots
from patch_metrics import Lightness, PatchPlugin, Warmth
from PIL import Image, ImageChops
from report_cases import HTML, noise

from d4k.evaluation import Measuring, Subject, measure, read_evaluation
from d4k.report import write_report


def test_a_hundred_random_pixels_have_the_colours_of_the_file(open_page: Open, pixels: dict[str, Image.Image]) -> None:
    opened = open_page("#view?row=row-0&mode=side")
    page = opened.page
    opened.settle()
    rng, names = random.Random(0), list(pixels)
    seen = 0
    for _ in range(10):
        x, y = rng.randrange(20, 2028), rng.randrange(20, 2028)
        page.evaluate(f"([x, y]) => {PANES}.go({{ x, y, z: 32 }}, true)", [x + 0.5, y + 0.5])
        opened.settle()
        screen = shot(page)
        for _ in range(10):
            pane = rng.randrange(3)
            px, py = x + rng.randrange(-5, 6), y + rng.randrange(-6, 7)
            # not only the middle of the square: also near its corners
            dx, dy = rng.choice([(0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)])
            ((left, top),) = spots(page, pane, [(px + dx, py + dy)])
            assert screen.getpixel((int(left), int(top))) == pixels[names[pane]].getpixel((px, py)), (pane, px, py)
            seen += 1
    assert seen == 100


def test_at_one_to_one_the_screen_is_the_picture_over_the_seams_of_tiles(
    open_page: Open, pixels: dict[str, Image.Image]
) -> None:
    opened = open_page("#view?row=row-0&sets=run-a&mode=side&x=1024.3&y=1023.8&z=1")
    opened.settle()
    ((left, top),) = spots(opened.page, 0, [(900, 950)])
    box = (round(left), round(top), round(left) + 250, round(top) + 150)  # tiles meet at 1024
    seen = shot(opened.page).crop(box)
    assert ImageChops.difference(seen, pixels["Run A"].crop((900, 950, 1150, 1100))).getbbox() is None


@pytest.mark.parametrize("mode", ["side", "stack"])
def test_all_panes_move_together(open_page: Open, mode: str) -> None:
    opened = open_page(f"#view?row=row-0&mode={mode}&x=700&y=900&z=2")
    page = opened.page
    opened.settle()
    before = page.evaluate(f"{PANES}.where()")
    box = page.locator(".pane").nth(1).bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 100)
    page.mouse.wheel(0, -300)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 130, steps=3)
    page.mouse.up()
    opened.settle()
    state = "[viewer.viewport.getZoom(), viewer.viewport.getCenter().x, viewer.viewport.getCenter().y]"
    after = page.evaluate(f"{PANES}.panes.map(({{ viewer }}) => {state})")
    here = page.evaluate(f"{PANES}.where()")
    assert here["z"] > before["z"]
    assert abs(here["x"] - before["x"]) > 5
    for other in after[1:]:
        assert other == pytest.approx(after[0], abs=1e-9)


def test_flicker_shows_one_picture_after_the_other(open_page: Open, pixels: dict[str, Image.Image]) -> None:
    opened = open_page("#view?row=row-0&mode=side&x=100&y=100&z=16")
    page = opened.page
    opened.settle()
    for name in ["Photographs", "Run A", "Run B", "Photographs"]:
        page.keyboard.press("f")
        opened.settle()
        turn = list(pixels).index(name)
        ((left, top),) = spots(page, turn, [(101.5, 102.5)])
        assert shot(page).getpixel((int(left), int(top))) == pixels[name].getpixel((101, 102))
        assert page.locator(".caption[data-role=under] .label").inner_text() == name
    page.keyboard.press("2")
    assert page.locator(".caption[data-role=under] .label").inner_text() == "Run A"


def test_the_slider_parts_two_pictures(open_page: Open, pixels: dict[str, Image.Image]) -> None:
    opened = open_page("#view?row=row-0&mode=wipe&pair=photographs,run-a&x=300&y=300&z=16")
    page = opened.page
    opened.settle()
    points = [(280.5, 300.5), (320.5, 300.5)]

    def colours() -> list[Any]:
        screen = shot(page)
        return [screen.getpixel((int(x), int(y))) for x, y in spots(page, 0, points)]

    one, other = ([pixels[name].getpixel((x, 300)) for x in (280, 320)] for name in ("Photographs", "Run A"))
    assert colours() == [one[0], other[1]]
    page.locator("#divider").focus()
    page.keyboard.press("End")
    assert colours() == one
    page.keyboard.press("Home")
    assert colours() == other
    handle = page.locator("#divider").bounding_box()
    page.mouse.move(handle["x"] + 22, handle["y"] + 200)
    page.mouse.down()
    page.mouse.move(600, handle["y"] + 200, steps=2)
    page.mouse.up()
    assert page.locator("#divider").get_attribute("aria-valuenow") == "50"
    assert colours() == [one[0], other[1]]


def test_the_difference_is_black_where_pictures_agree_and_is_multiplied_elsewhere(
    open_page: Open, pixels: dict[str, Image.Image]
) -> None:
    opened = open_page("#view?row=row-0&mode=difference&gain=2&x=1024&y=500&z=16")
    page = opened.page
    opened.settle()
    points = [(x, y) for x in range(1010, 1038, 3) for y in (495, 504)]
    screen = shot(page)
    agreed = 0
    for (x, y), (left, top) in zip(points, spots(page, 1, [(x + 0.5, y + 0.5) for x, y in points]), strict=True):
        one, other = (pixels[name].getpixel((x, y)) for name in ("Run A", "Run B"))
        wanted = [min(255, 2 * abs(a - b)) for a, b in zip(one, other, strict=True)]  # type: ignore[arg-type]
        assert screen.getpixel((int(left), int(top))) == pytest.approx(wanted, abs=2)
        agreed += wanted == [0, 0, 0]
    assert 0 < agreed < len(points)


def test_a_link_brings_back_what_was_seen_and_back_goes_back(open_page: Open) -> None:
    opened = open_page("#view?row=row-2&sets=photographs,run-b&mode=side")
    page = opened.page
    opened.settle()
    page.evaluate(f"{PANES}.go({{ x: 1501.25, y: 333.5, z: 8 }}, true)")
    page.keyboard.press("d")
    page.keyboard.press("]")
    opened.settle()
    page.wait_for_function("() => location.hash.includes('gain=8') && location.hash.includes('z=8')")
    link = page.evaluate("d4k.views.view.address()")
    assert link == page.url
    other = open_page(link[link.index("#") :])
    other.settle()
    here = other.page.evaluate(f"{PANES}.where()")
    assert (here["x"], here["y"], here["z"]) == pytest.approx((1501.25, 333.5, 8), abs=0.01)
    state = other.page.evaluate("d4k.views.view.state")
    assert (state["row"], state["sets"], state["mode"], state["gain"]) == (2, [0, 2], "difference", 8)
    page.keyboard.press("n")
    page.wait_for_function("() => location.hash.includes('row=row-3')")
    page.go_back()
    page.wait_for_function("() => d4k.views.view.state.row === 2 && d4k.views.view.state.mode === 'difference'")
    page.go_back()
    page.wait_for_function("() => d4k.views.view.state.mode === 'side'")


def test_everything_can_be_reached_by_keys(open_page: Open) -> None:
    page = open_page("").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Alt+2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.row") == "row-1"
    page.keyboard.press("Enter")
    page.wait_for_function(
        f"() => location.hash.startsWith('#view?row=row-1') && {PANES}.panes.every((pane) => pane.ready)"
    )
    page.keyboard.press("x")
    page.wait_for_function(f"() => Math.abs({PANES}.where().z - 8) < 1e-6")
    before = page.evaluate(f"{PANES}.where().x")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => Math.abs({PANES}.where().x - {before} - 12) < 1e-6")
    page.keyboard.press("0")
    page.wait_for_function(f"() => {PANES}.spot === null")
    page.keyboard.press("h")
    page.wait_for_function("() => document.querySelectorAll('.pane img.heat').length === 3")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.uncheck("#single")
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("d")
    assert page.evaluate("d4k.views.view.state.mode") == "side"


def test_a_patch_is_shown_where_it_lies(open_page: Open, pixels: dict[str, Image.Image]) -> None:
    opened = open_page("#view?row=row-0&mode=side")
    page = opened.page
    opened.settle()
    patch = page.evaluate("d4k.model.rows[0].pictures[1].patches.glcm.best[1]")
    button = page.locator("#patches .of-set").nth(1).locator(".strip").nth(1).locator("button").nth(1)
    button.scroll_into_view_if_needed()
    button.locator("img").first.evaluate("(image) => image.decode()")
    box = button.locator(".crop").bounding_box()
    screen = shot(page)
    scale = 80 / 64
    for x, y in [(3, 5), (30, 40), (62, 61)]:
        seen = screen.getpixel((int(box["x"] + (x + 0.5) * scale), int(box["y"] + (y + 0.5) * scale)))
        assert seen == pixels["Run A"].getpixel((patch["x"] + x, patch["y"] + y))
    button.click()
    opened.settle()
    here = page.evaluate(f"{PANES}.where()")
    assert (here["x"], here["y"]) == pytest.approx((patch["x"] + 32, patch["y"] + 32), abs=0.5)
    assert here["z"] >= 4


def test_the_heat_map_lies_over_its_patches(open_page: Open, folder: Path) -> None:
    opened = open_page("#view?row=row-0&sets=run-a&mode=side&heat=1&metric=glcm&x=1000&y=1000&z=1")
    page = opened.page
    opened.settle()
    page.evaluate("document.querySelector('#stage').style.setProperty('--heat', 1)")
    page.wait_for_function("() => document.querySelector('img.heat').complete")
    heat = Image.open(folder / "heat/run-a/0.png").convert("RGB")
    patches = [(c, r) for c in (13, 15, 18) for r in (12, 14, 16)]
    screen = shot(page)
    middles = spots(page, 0, [(c * 64 + 32, r * 64 + 32) for c, r in patches])
    for patch, (left, top) in zip(patches, middles, strict=True):
        assert screen.getpixel((int(left), int(top))) == heat.getpixel(patch)
    assert "low 0.40" in page.locator(".legend").inner_text()


def test_a_report_of_what_was_measured_opens_in_every_view(
    open_page: Open, install: Callable[..., None], tmp_path: Path
) -> None:
    install(light=PatchPlugin)
    names = ["photo", "one", "other"]
    for seed, name in enumerate(names):
        (tmp_path / name).mkdir()
        for row in range(3):
            noise(300, 10 * seed + row).save(tmp_path / name / f"{row}.png", compress_level=1)
    for name in names[1:]:
        subjects = [
            Subject(f"{row}", tmp_path / name / f"{row}.png", f"{HTML} {row}", row, tmp_path / f"photo/{row}.png")
            for row in range(3)
        ]
        settings = Measuring(output=tmp_path / name, device="cpu", resamples=20, name=name)
        measure(subjects, {"lightness": Lightness(), "warmth": Warmth()}, settings)
    report = write_report(tmp_path / "report", [tmp_path / name for name in names[1:]], title="A <b>title</b>")
    opened = open_page("", place=report.parent)
    page = opened.page
    assert page.locator("#title").inner_text() == "A <b>title</b>"
    value = read_evaluation(tmp_path / "one").scores[0].value
    row = page.locator("table.scores tbody tr").filter(has_text="one")
    assert float(row.locator("td[data-metric=lightness] .value").inner_text()) == pytest.approx(value, rel=1e-2)
    badge = page.locator("table.scores td[data-metric=lightness] .badge").last.inner_text()
    assert badge.split()[-1] == page.locator("table.differences tbody td").nth(2).inner_text().split()[0]
    page.evaluate("location.hash = '#pictures'")
    assert [text[-1] for text in prompts(page)] == ["0", "1", "2"]
    sets = page.evaluate("d4k.model.sets.map((set) => set.name)")
    page.locator("#rows .prompt").nth(1).click()
    opened.settle()
    page.evaluate(f"{PANES}.go({{ x: 211.5, y: 107.5, z: 40 }}, true)")
    opened.settle()
    screen = shot(page)
    for pane, name in enumerate(sets):
        file = tmp_path / (name if name in names else "photo") / "1.png"
        ((left, top),) = spots(page, pane, [(211.5, 107.5)])
        assert screen.getpixel((int(left), int(top))) == Image.open(file).getpixel((211, 107)), name
    page.evaluate("location.hash = '#vote?seed=1'")
    page.click("#vote-begin")
    assert page.locator("#vote-progress").inner_text() == "1 of 3"
