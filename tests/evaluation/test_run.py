"""Evaluation: every picture once through every metric, refusals before work, and tables that say what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import define, field
from PIL import Image
from torch import Tensor

from d4k.errors import ConfigError, DataError
from d4k.evaluation import check_needs, evaluate, metrics_by_name


@define(slots=False)
class Spy:
    """A metric that remembers what it was shown and returns how often."""

    needs: frozenset[str] = frozenset({"image"})
    higher_is_better: bool | None = None
    unit: str = ""
    seen: dict[str, list[Any]] = field(init=False, factory=dict)
    loads: int = field(init=False, default=0)

    def load(self, device: torch.device) -> None:
        self.loads += 1

    def observe(self, **inputs: Any) -> Tensor:
        for need, given in inputs.items():
            self.seen.setdefault(need, []).extend(given)
        return torch.ones(len(next(iter(inputs.values()))), 1)

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(len(rows))


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
    assert score.settings == {"scale": 1.0, "resamples": 1000}


def test_metrics_get_exactly_what_they_need(photos: Path, reference: Path) -> None:
    """Image and reference as uint8 (3, H, W), file and prompt beside them, in the order of the names."""
    metrics = {"one": spy("image"), "two": spy("file", "prompt"), "three": spy("reference", "image")}
    scores = evaluate(photos, metrics, prompts=list("abcde"), reference=reference)
    assert [score.metric for score in scores] == ["one", "two", "three"]
    assert [set(m.seen) for m in metrics.values()] == [{"image"}, {"file", "prompt"}, {"reference", "image"}]
    assert metrics["two"].seen == {"file": [photos / f"{i}.png" for i in range(5)], "prompt": list("abcde")}
    image = metrics["one"].seen["image"][2]
    assert (image.dtype, image.shape) == (torch.uint8, (3, 20, 24))
    assert np.array_equal(image.permute(1, 2, 0), pixels(photos / "2.png"))
    assert [picture.unique().item() for picture in metrics["three"].seen["reference"]] == [0, 1, 2, 3, 4]


def test_references_are_those_of_the_same_name(photos: Path, reference: Path) -> None:
    """Files in another order are paired all the same; other names go by their order, and some of both are refused."""
    metric = spy("file", "reference")
    evaluate([photos / "3.png", photos / "1.png"], {"spy": metric}, reference=two(reference, "1.png", "3.png"))
    assert [picture.unique().item() for picture in metric.seen["reference"]] == [3, 1]
    (reference / "3.png").rename(reference / "other.png")
    with pytest.raises(DataError, match=r"1 of 2 images have a reference of their name in .*, and .*3\.png has none"):
        evaluate([photos / "3.png", photos / "1.png"], {"spy": metric}, reference=reference)
    (reference / "1.png").rename(reference / "another.png")
    metric = spy("file", "reference")
    evaluate([photos / "3.png", photos / "1.png"], {"spy": metric}, reference=reference)
    assert [picture.unique().item() for picture in metric.seen["reference"]] == [1, 3]


def two(folder: Path, *names: str) -> Path:
    """Leave these files in a folder."""
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()
    return folder


def test_nothing_is_left_from_an_earlier_evaluation(photos: Path, metric: Any) -> None:
    """The same metric measures again, and is loaded again."""
    first = evaluate(photos, {"brightness": metric})
    assert evaluate(photos, {"brightness": metric}) == first
    one = spy("image")
    for _ in range(2):
        evaluate(photos, {"spy": one})
    assert (one.loads, len(one.seen["image"])) == (2, 10)


def test_files_are_taken_in_the_order_given(photos: Path) -> None:
    """A list of files replaces a folder."""
    one = spy("file")
    evaluate([photos / "3.png", photos / "1.png"], {"spy": one})
    assert [file.name for file in one.seen["file"]] == ["3.png", "1.png"]


def test_metric_that_is_no_attrs_class_has_no_settings(photos: Path) -> None:
    """A plain class, and a metric in the way of torchmetrics."""

    class Plain:
        needs, higher_is_better, unit = frozenset({"file"}), None, ""

        def load(self, device: torch.device) -> None: ...
        def observe(self, file: Any) -> Tensor:
            return torch.ones(len(file), 1)

        def score(self, rows: Tensor, references: Tensor | None = None) -> float:
            return 2.0

    class Other:
        value = 0.0

        def update(self, img: Tensor) -> None:
            self.value = float(img.mean())

        def compute(self) -> float:
            return self.value

        def reset(self) -> None: ...

    plain, other = evaluate(photos, {"plain": Plain(), "other": Other()}, resamples=0)  # type: ignore[dict-item]
    assert (plain.value, plain.settings) == (2.0, {"resamples": 0})
    assert other.value == pytest.approx(np.mean([pixels(file).mean() / 255 for file in photos.glob("*.png")]))


@pytest.mark.parametrize(
    ("need", "message"),
    [
        ("prompt", r"^clip-score needs prompts: pass --prompts FILE"),
        ("reference", r"^clip-score needs reference images: pass --reference FOLDER"),
        ("references", r"^clip-score needs reference pictures: pass --references FOLDER"),
        ("depth", r"^clip-score needs depth, which evaluation does not offer$"),
    ],
)
def test_missing_needs_are_refused_before_anything_is_measured(photos: Path, need: str, message: str) -> None:
    """A folder is looked at only for the prompts in its index."""
    where = photos if need == "prompt" else photos / "nowhere"
    with pytest.raises(ConfigError, match=message):
        evaluate(where, {"good": spy("image"), "clip-score": spy(need)})
    with pytest.raises(ConfigError, match=message):
        check_needs(
            {"clip-score": spy(need)},
            prompts=need != "prompt",
            reference=need != "reference",
            references=need != "references",
        )


def test_a_metric_of_sets_that_needs_prompts_is_refused() -> None:
    """References have none."""
    with pytest.raises(ConfigError, match="odd compares sets, and needs more than the pictures of them"):
        check_needs({"odd": spy("prompt", "references")}, prompts=True, references=True)


def test_unknown_settings_are_refused(photos: Path, metric: Any) -> None:
    """With a suggestion."""
    with pytest.raises(ConfigError, match="unknown setting 'stict'; did you mean 'strict'?"):
        evaluate(photos, {"brightness": metric}, stict=True)
    with pytest.raises(ConfigError, match="resamples must be a whole number of at least 0, got -1"):
        evaluate(photos, {"brightness": metric}, resamples=-1)


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
    assert (metric.loads, metric.seen) == (0, {})
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


def test_a_reference_that_cannot_be_used_leaves_its_picture_out_of_what_compares_them(
    photos: Path, reference: Path
) -> None:
    """Other metrics measure it all the same."""
    (reference / "1.png").write_bytes((reference / "0.png").read_bytes()[:48])
    compared, alone = evaluate(photos, {"x": spy("image", "reference"), "y": spy("image")}, reference=reference)
    assert (compared.count, alone.count) == (4, 5)
    assert compared.remarks == ("1 of 5 pictures was left out: 1 unmeasurable.",)


@pytest.mark.usefixtures("fake_plugin")
def test_one_name_of_a_metric_is_no_list_of_letters() -> None:
    """As one model or one path stands for itself elsewhere."""
    assert list(metrics_by_name("brightness")) == ["brightness"]
