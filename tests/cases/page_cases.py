"""What tests ask of a page of a report in a browser."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

PANES = "d4k.views.view.panes"
Open = Callable[..., Any]


def shot(page: Any) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def spots(page: Any, pane: int, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where on the screen pixels of a pane's picture lie."""
    found = page.evaluate(
        f"""([pane, points]) => {{
            const {{ viewer, element }} = {PANES}.panes[pane];
            const box = element.getBoundingClientRect();
            return points.map(([x, y]) => {{
                const at = viewer.viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
                return [box.left + at.x, box.top + at.y];
            }});
        }}""",
        [pane, points],
    )
    return [(x, y) for x, y in found]


def prompts(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#rows .row .prompt").all_inner_texts()]
