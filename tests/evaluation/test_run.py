"""Evaluation: every picture once through every metric, refusals before work, and tables that say what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import define, field
from PIL import Image

from d4k import Score
from d4k.errors import ConfigError, DataError
from d4k.evaluation import check_needs, evaluate, markdown_table, score_table, write_scores


@define(slots=False)
class Spy:
    """A metric that remembers what it was shown and returns how often."""

    needs: frozenset[str] = frozenset({"image"})
    higher_is_better: bool | None = None
    unit: str = ""
    seen: list[Any] = field(init=False, factory=list)
    resets: int = field(init=False, default=0)

    def update(self, **inputs: Any) -> None:
        self.seen.append(inputs)

    def compute(self) -> float:
        return float(len(self.seen))

    def reset(self) -> None:
        self.seen.clear()
        self.resets += 1


def pixels(file: Path) -> Any:
    with Image.open(file) as image:
        return np.asarray(image)


def spy(*needs: str) -> Any:
    return Spy(frozenset(needs))


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Five grey pictures of the size of the photos, each of another level."""
    folder = tmp_path / "reference"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (24, 20), (i, i, i)).save(folder / f"{i}.png")
    return folder


def test_metric_sees_every_picture_once_as_bytes(photos: Path, metric: Any) -> None:
    """The score is that of NumPy on the files; count, direction, unit, settings and details are filled in."""
    means = [pixels(photos / f"{i}.png").mean() for i in range(5)]
    (score,) = evaluate(photos, {"brightness": metric})
    assert score.value == pytest.approx(np.mean(means))
    assert score.details == {"largest": pytest.approx(max(means))}
    assert (score.metric, score.unit, score.count, score.higher_is_better) == ("brightness", "levels", 5, True)
    assert score.settings == {"scale": 1.0}


def test_metrics_get_exactly_what_they_need(photos: Path, reference: Path) -> None:
    """Image and reference as uint8 (1, 3, H, W), file and prompt as lists, in the order of the names."""
    metrics = {"one": spy("image"), "two": spy("file", "prompt"), "three": spy("reference", "image")}
    scores = evaluate(photos, metrics, prompts=list("abcde"), reference=reference)
    assert [score.metric for score in scores] == ["one", "two", "three"]
    assert [set(m.seen[0]) for m in metrics.values()] == [{"image"}, {"file", "prompt"}, {"reference", "image"}]
    assert [(m["file"], m["prompt"]) for m in metrics["two"].seen] == [
        ([photos / f"{i}.png"], [letter]) for i, letter in enumerate("abcde")
    ]
    image = metrics["one"].seen[2]["image"]
    assert image.shape == (1, 3, 20, 24)
    assert np.array_equal(image[0].permute(1, 2, 0), pixels(photos / "2.png"))
    assert [m["reference"].unique().item() for m in metrics["three"].seen] == [0, 1, 2, 3, 4]


def test_metric_starts_afresh(photos: Path, metric: Any) -> None:
    """What an earlier evaluation left behind does not count."""
    first = evaluate(photos, {"brightness": metric})
    assert evaluate(photos, {"brightness": metric}) == first
    one = spy("image")
    evaluate(photos, {"spy": one})
    assert one.resets == 1


def test_files_are_taken_in_the_order_given(photos: Path) -> None:
    """A list of files replaces a folder."""
    one = spy("file")
    evaluate([photos / "3.png", photos / "1.png"], {"spy": one})
    assert [m["file"][0].name for m in one.seen] == ["3.png", "1.png"]


def test_metric_that_is_no_attrs_class_has_no_settings(photos: Path) -> None:
    """A plain torchmetrics image metric can be measured, too."""

    class Plain:
        needs, higher_is_better, unit = frozenset({"file"}), None, ""

        def update(self, **inputs: Any) -> None: ...
        def reset(self) -> None: ...
        def compute(self) -> float:
            return 2.0

    assert evaluate(photos, {"plain": Plain()}) == [Score("plain", 2.0, "", 5, None)]  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("need", "message"),
    [
        ("prompt", r"^clip-score needs prompts: pass --prompts FILE"),
        ("reference", r"^clip-score needs reference images: pass --reference FOLDER"),
        ("depth", r"^clip-score needs depth, which evaluation does not offer$"),
    ],
)
def test_missing_needs_are_refused_before_anything_is_read(tmp_path: Path, need: str, message: str) -> None:
    """Even the folder is not looked at."""
    with pytest.raises(ConfigError, match=message):
        evaluate(tmp_path / "nowhere", {"good": spy("image"), "clip-score": spy(need)})
    with pytest.raises(ConfigError, match=message):
        check_needs({"clip-score": spy(need)}, prompts=need != "prompt", reference=need != "reference")


def test_numbers_of_inputs_must_agree(photos: Path, reference: Path) -> None:
    """Nothing is paired by chance: both counts are named."""
    (reference / "4.png").unlink()
    with pytest.raises(DataError, match="5 images, but 2 prompts: there must be one for each image"):
        evaluate(photos, {"x": spy("prompt")}, prompts=["a", "b"])
    with pytest.raises(DataError, match="5 images, but 4 references"):
        evaluate(photos, {"x": spy("reference")}, reference=reference)
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluate([], {"x": spy("image")})


def test_references_that_are_too_few_or_too_many_are_named(photos: Path, reference: Path) -> None:
    """The image that has none by its name, or the reference that belongs to no image."""
    (reference / "2.png").unlink()
    with pytest.raises(
        DataError, match=r"5 images, but 4 references in .*reference; there is none for .*photos/2\.png"
    ):
        evaluate(photos, {"x": spy("reference")}, reference=reference)
    for name in ("2", "extra"):
        Image.new("RGB", (24, 20)).save(reference / f"{name}.png")
    with pytest.raises(DataError, match=r"5 images, but 6 references in .*; .*reference/extra\.png belongs to none"):
        evaluate(photos, {"x": spy("reference")}, reference=reference)


def test_reference_of_another_size_is_refused_by_name_before_anything_is_measured(
    photos: Path, reference: Path
) -> None:
    """By its header; a metric that needs no reference does not mind."""
    Image.new("RGB", (24, 21)).save(reference / "4.png")
    metric = spy("image", "reference")
    with pytest.raises(DataError, match=r"reference .*4\.png is 24x21, but image .*4\.png is 24x20: .* crop or resize"):
        evaluate(photos, {"x": metric}, reference=reference)
    assert metric.resets == 1
    assert not metric.seen
    assert evaluate(photos, {"x": spy("image")}, reference=reference)[0].count == 5


def test_reference_is_compared_as_it_is_shown(photos: Path, reference: Path) -> None:
    """One that is stored lying on its side has the size of its image; one that really lies is refused."""
    turned = Image.new("RGB", (20, 24))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(reference / "4.png", exif=exif)
    assert evaluate(photos, {"x": spy("image", "reference")}, reference=reference)[0].count == 5
    Image.new("RGB", (20, 24)).save(reference / "4.png")
    with pytest.raises(DataError, match=r"4\.png is 20x24, but image .*4\.png is 24x20"):
        evaluate(photos, {"x": spy("image", "reference")}, reference=reference)


def test_unreadable_picture_stops_with_its_name(photos: Path) -> None:
    """A score over the rest would be a silent one."""
    (photos / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3\.png"):
        evaluate(photos, {"x": spy("image")})


ROWS = {
    "before": [Score("glcm", 0.5, "bits", 3, True, {"levels": 64}), Score("cr", 12.0, "", 3, False, {}, {"bpp": 2.0})],
    "after the run": [Score("glcm", 0.75, "bits", 3, True), Score("cr", 10.0, "", 3, False, {}, {"bpp": 2.5})],
}


def test_table_aligns_one_row_a_set_and_one_column_a_figure() -> None:
    """Unit and direction are under the name of the metric."""
    assert score_table(ROWS).splitlines() == [
        "               glcm [bits]       cr               bpp",
        "               higher is better  lower is better",
        "before         0.5000            12.0000          2.0000",
        "after the run  0.7500            10.0000          2.5000",
    ]


def test_markdown_carries_count_and_settings() -> None:
    """The same figures, and below them what they rest on."""
    assert markdown_table(ROWS).splitlines() == [
        "|  | glcm [bits] (higher is better) | cr (lower is better) | bpp |",
        "| --- | --- | --- | --- |",
        "| before | 0.5000 | 12.0000 | 2.0000 |",
        "| after the run | 0.7500 | 10.0000 | 2.5000 |",
        "",
        "- glcm: 3 images, settings {'levels': 64}",
        "- cr: 3 images, settings none",
    ]


def test_scores_are_written_by_ending(tmp_path: Path) -> None:
    """JSON keeps every field of every score, Markdown the table; another ending is refused."""
    write_scores(ROWS, tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    assert data["format"] == 1
    assert data["scores"]["before"][0] == {
        "metric": "glcm", "value": 0.5, "unit": "bits", "count": 3, "higher_is_better": True,
        "settings": {"levels": 64}, "details": {},
    }  # fmt: skip
    write_scores(ROWS, tmp_path / "a.md")
    assert (tmp_path / "a.md").read_text() == markdown_table(ROWS)
    with pytest.raises(ConfigError, match=r"cannot write scores to 'a\.csv': the ending must be \.json or \.md"):
        write_scores(ROWS, tmp_path / "a.csv")
