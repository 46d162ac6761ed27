"""What style.css and the page promise without a browser: contrast, and that nothing points outside the folder."""

from __future__ import annotations

import re

import pytest
from report_cases import ASSETS

STYLE = (ASSETS / "style.css").read_text()
PAGE = (ASSETS / "index.html").read_text()
TEXT, SHAPE = 4.5, 3.0  # WCAG 2.2 AA, 1.4.3 and 1.4.11
PAIRS = [
    *((ink, paper, TEXT) for ink in ("ink", "quiet", "accent") for paper in ("paper", "raised", "sunk")),
    ("on-accent", "accent", TEXT),
    ("on-stage", "stage", TEXT),
    *((kind, f"{kind}-paper", TEXT) for kind in ("good", "bad", "other")),
    *((kind, paper, TEXT) for kind in ("good", "bad", "other") for paper in ("paper", "sunk")),
    *(("edge", paper, SHAPE) for paper in ("paper", "raised")),
    ("paper", "ink", TEXT),
]


def palettes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r"(:root[^{]*)\{([^}]*)\}", STYLE)
    found = {selector.strip(): dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", body)) for selector, body in blocks}
    return {
        "light": found[":root"],
        "chosen dark": found[':root[data-theme="dark"]'],
        "dark of the system": found[':root:not([data-theme="light"])'],
    }


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_black_on_white_has_the_contrast_that_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", ["light", "chosen dark", "dark of the system"])
def test_texts_and_controls_can_be_told_from_what_is_behind_them(name: str) -> None:
    palette = palettes()[name]
    low = {
        (front, back): round(contrast(palette[front], palette[back]), 2)
        for front, back, wanted in PAIRS
        if contrast(palette[front], palette[back]) < wanted
    }
    assert low == {}


def test_both_ways_to_dark_have_the_same_colours() -> None:
    assert palettes()["chosen dark"] == palettes()["dark of the system"]


def test_colours_are_named_in_one_place() -> None:
    rules = STYLE[STYLE.index("/* ---- ground ---- */") :]
    free = {"#000", "#fff", "#16181b", "#8ab6f5"}  # on pictures, in both themes
    viridis = set(re.findall(r"#[0-9a-f]{6}", rules[rules.index(".viridis") :].split("}")[0]))
    assert set(re.findall(r"#[0-9a-f]{3,6}\b(?=[;, )])", rules)) <= free | viridis


def test_the_page_names_no_address_and_every_script_is_there() -> None:
    sources = [STYLE, PAGE, *(file.read_text() for file in ASSETS.glob("*.js"))]
    addresses = {url for text in sources for url in re.findall(r"(?:https?:)?//[a-z][\w.]*\.[a-z]+[^\s\"']*", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}
    scripts = re.findall(r'<script defer src="([^"]+)"', PAGE)
    assert {name for name in scripts if not (ASSETS / name).exists()} == {"data.js", "openseadragon.min.js"}
    assert {file.name for file in ASSETS.glob("*.js")} <= set(scripts)


def test_texts_reach_the_page_as_texts() -> None:
    for file in ASSETS.glob("*.js"):
        text = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            file
        )


def test_scripts_are_short() -> None:
    assert max(len(file.read_text().splitlines()) for file in ASSETS.glob("*.js")) <= 400
