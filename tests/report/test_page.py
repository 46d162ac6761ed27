"""The page around the viewer in a real browser, opened from disk: scores, rows, the vote, and access for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from page_cases import Open, prompts
from PIL import Image
from report_cases import HTML, METRICS, write_page

from d4k.evaluation.votes import read_votes


def tiles_of(page: Any, pane: int) -> str:
    path: str = page.evaluate(f"d4k.views.vote.panes.panes[{pane}].picture.tiles.path")
    return f"/{path}/"


def test_rows_sort_by_a_metric_and_by_a_difference(open_page: Open, folder: Path) -> None:
    data = json.loads((folder / "data.js").read_text().removeprefix("window.D4K = ").rstrip(";\n"))
    page = open_page("#pictures").page
    page.select_option("#sort", "glcm")
    page.select_option("#sort-of", "1")
    values = {row["id"]: row["pictures"][1]["values"]["glcm"] for row in data["rows"]}
    ranked = sorted(values, key=lambda name: -values[name])
    shown = page.eval_on_selector_all("#rows .row", "rows => rows.map((row) => row.dataset.row)")
    assert shown == ranked[: len(shown)]
    assert len(shown) > 5
    page.select_option("#sort-minus", "0")
    page.click("#sort-order")
    change = {row["id"]: values[row["id"]] - row["pictures"][0]["values"]["glcm"] for row in data["rows"]}
    shown = page.eval_on_selector_all("#rows .row", "rows => rows.map((row) => row.dataset.row)")
    assert shown == sorted(change, key=lambda name: change[name])[: len(shown)]
    assert "sort=glcm&of=run-a&minus=photographs&order=up" in page.url


def test_a_row_without_a_value_comes_last_in_both_orders(open_page: Open) -> None:
    page = open_page("#pictures?sort=glcm&of=run-b").page
    for _ in range(2):
        page.locator("#rows .row").first.focus()
        page.keyboard.press("End")
        assert prompts(page)[-1] == "the last one"
        page.click("#sort-order")


def test_the_filter_finds_rows_that_have_all_words(open_page: Open) -> None:
    page = open_page("#pictures").page
    page.keyboard.press("/")
    page.keyboard.type("RIVER 7")
    assert prompts(page) == [f"prompt number {i} of a river" for i in (7, 17, 27, 37, 47, 57)]
    assert page.locator("#found").inner_text() == "6 of 60 rows"
    page.wait_for_function("() => location.hash.includes('q=RIVER')")
    page.fill("#filter", "nothing of the kind")
    assert page.locator("#none").is_visible()


def test_three_thousand_rows_make_a_screenful_of_elements(open_page: Open, tmp_path: Path) -> None:
    write_page(
        tmp_path / "many", {name: [Image.new("RGB", (64, 64))] for name in ("A", "B")}, [f"p{i}" for i in range(3000)]
    )
    page = open_page("#pictures", place=tmp_path / "many").page
    assert page.locator("#rows").get_attribute("aria-rowcount") == "3000"
    assert page.locator("#rows .row").count() < 30
    page.evaluate("for (let at = 0; at < 20; at++) { scrollTo(0, at * 6000); dispatchEvent(new Event('scroll')); }")
    assert page.locator("#rows .row").count() < 30
    page.locator("#rows .row").first.focus()
    page.keyboard.press("End")
    assert prompts(page)[-1] == "p2999"
    assert page.evaluate("document.activeElement.dataset.row") == "row-2999"
    assert page.locator("#rows .row").count() < 30


def test_html_in_texts_stays_text(open_page: Open) -> None:
    opened = open_page("#pictures")
    page = opened.page
    assert HTML in prompts(page)
    page.evaluate("location.hash = '#view?row=row-1'")
    assert page.locator("#view-prompt").inner_text() == HTML
    page.evaluate("location.hash = '#scores'")
    page.locator("#metric-0 summary").click()
    assert METRICS[0].remarks[0] in page.locator("#metric-0").inner_text()
    assert page.locator("main i, img[src=x]").count() == 0
    assert page.evaluate("document.body.id") == ""


def test_what_is_real_is_said_in_words_and_marks(open_page: Open, folder: Path) -> None:
    data = json.loads((folder / "data.js").read_text().removeprefix("window.D4K = ").rstrip(";\n"))
    page = open_page("#scores?with=run-a").page
    words = {}
    for found in data["comparisons"]:
        if found["a"] == 1:
            cell = page.locator("tbody tr").nth(found["b"]).locator(f"td[data-metric='{found['metric']}']")
            words[found["metric"]] = (cell.locator(".badge").inner_text().split("\u2009")[0], found)
    for metric in METRICS[:-1]:
        text, found = words[metric.name]
        if not found["real"]:
            assert text.startswith("○ unclear")
        elif metric.higher_is_better is None:
            assert text.startswith("◆ differs")
        else:
            better = (found["difference"] > 0) == metric.higher_is_better
            assert text.startswith("▲ better" if better else "▼ worse")
    assert any(found["real"] for _, found in words.values())
    assert page.locator("#voted tbody tr").inner_text().split("\t") == [
        "Run B preferred to Photographs",
        "0.63",
        "0.51 to 0.72",
        "40",
    ]
    page.select_option("#base", "run-b")  # the same pair, turned around
    text, found = words["clip-score"]
    turned = page.locator("tbody tr").nth(1).locator("td[data-metric='clip-score'] .badge").inner_text()
    assert text.startswith("▲") == turned.startswith("▼")


def test_votes_are_exported_with_what_was_meant(
    open_page: Open, pixels: dict[str, Image.Image], tmp_path: Path
) -> None:
    opened = open_page("#vote?seed=5")
    page = opened.page
    page.fill("#voter", "Ada <b>")
    page.select_option("#vote-limit", "10")
    page.click("#vote-begin")
    expected = []
    keys = ["1", "2", "ArrowLeft", "0", "ArrowRight", "1", "2", "1", "0", "2"]
    for number, key in enumerate(keys):
        opened.settle("d4k.views.vote.panes")
        left = "Run A" if "/run-a/" in tiles_of(page, 0) else "Run B"
        right = "Run A" if "/run-a/" in tiles_of(page, 1) else "Run B"
        assert {left, right} == {"Run A", "Run B"}
        assert "Run" not in page.locator("#part-vote").inner_text()
        expected.append(({"1": left, "ArrowLeft": left, "2": right, "ArrowRight": right}.get(key, "tie"), left))
        if number == 3:  # a slip, taken back
            page.keyboard.press("1")
            page.keyboard.press("u")
        page.keyboard.press(key)
    with page.expect_download() as waiting:
        page.click("#vote-save-end")
    waiting.value.save_as(tmp_path / "votes.json")
    file = json.loads((tmp_path / "votes.json").read_text())
    assert (file["format"], file["kind"], file["report"], file["voter"]) == (1, "d4k-votes", "A report", "Ada <b>")
    assert len(file["votes"]) == 10
    for vote, (choice, left) in zip(file["votes"], expected, strict=True):
        assert (vote["a"], vote["b"]) == ("Run A", "Run B")
        assert vote.get(vote["choice"], vote["choice"]) == choice
        assert vote[vote["left"]] == left
        assert vote["seconds"] >= 0
    assert {vote["left"] for vote in file["votes"]} == {"a", "b"}
    assert [vote.choice for vote in read_votes(tmp_path / "votes.json").votes] == [v["choice"] for v in file["votes"]]
    rows = [vote["row"] for vote in file["votes"]]
    assert len(set(rows)) == 10
    assert rows != sorted(rows, key=lambda name: int(name.split("-")[1]))


def test_a_vote_goes_on_after_the_page_was_closed(open_page: Open) -> None:
    opened = open_page("#vote?seed=9")
    opened.page.click("#vote-begin")
    opened.page.keyboard.press("1")
    opened.page.keyboard.press("2")
    assert opened.page.locator("#vote-progress").inner_text() == "3 of 59"
    before = opened.page.evaluate("d4k.views.vote.text()")
    page = opened.go("#vote")
    assert page.locator("#vote-progress").inner_text() == "3 of 59"
    assert page.evaluate("d4k.views.vote.text()") == before


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_in_one_direction(open_page: Open, width: int) -> None:
    page = open_page("", width=width, height=700, has_touch=True).page
    places = ["#scores", "#pictures?sort=glcm", "#view?mode=wipe", "#view?mode=side&heat=1", "#vote"]
    for place in places:
        page.evaluate(f"location.hash = '{place}'")
        page.wait_for_function(f"() => d4k.route.view === '{place[1:].split('?')[0]}'")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
    assert page.locator("#vote-begin").is_visible()


@pytest.mark.parametrize("given", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(open_page: Open, given: str) -> None:
    page = open_page("", color_scheme=given).page
    paper = "getComputedStyle(document.body).backgroundColor"
    dark, light = "rgb(21, 23, 26)", "rgb(252, 252, 250)"
    assert page.evaluate(paper) == {"light": light, "dark": dark}[given]
    page.click("#theme")
    assert page.evaluate(paper) == light
    page.keyboard.press("t")
    assert page.evaluate(paper) == dark
    page.reload()
    assert page.evaluate(paper) == dark


def test_the_policy_forbids_the_network(open_page: Open) -> None:
    opened = open_page("")
    blocked = opened.page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            await fetch("http://localhost:9/").catch(() => null);
            const image = new Image();
            image.src = "http://localhost:9/x.png";
            await new Promise((done) => (image.onerror = done));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.head.append(script);
            await new Promise((done) => setTimeout(done));
            return [seen, window.ran === undefined];
        }"""
    )
    opened.complaints.clear()
    opened.requests[:] = [url for url in opened.requests if not url.startswith("http://localhost:9/")]
    assert blocked[1]
    assert {"connect-src", "img-src", "script-src-elem"} <= set(blocked[0])


def test_pictures_and_controls_have_names(open_page: Open) -> None:
    page = open_page("#view?row=row-0").page
    page.evaluate("location.hash = '#pictures'")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, a[href], select, input, img, svg[role=img], [role=slider]")]
            .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim() || node.hasAttribute("alt")
                || (node.labels && node.labels.length) || node.querySelector("img[alt]:not([alt=''])")))
            .map((node) => node.outerHTML)"""
    )
    assert nameless == []
    alts = page.eval_on_selector_all("#rows img", "images => images.map((image) => image.alt)")
    assert "Photographs: a castle on a hill" in alts


def test_a_page_without_its_data_says_which_file_is_missing(open_page: Open, tmp_path: Path, folder: Path) -> None:
    for file in folder.glob("*.*"):
        if file.name != "data.js":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    opened = open_page("", place=tmp_path)
    assert "data.js is missing" in opened.page.locator("[role=alert]").inner_text()
    opened.complaints.clear()
