"""Metrics of torchmetrics: wrapped in a line, with the figures that torchmetrics itself computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from d4k.errors import ConfigError, DataError
from d4k.evaluation import score_rows
from d4k.evaluation.torchmetrics import TorchMetric, as_metric
from d4k.testing import check_metric

torchmetrics = pytest.importorskip("torchmetrics")
image = pytest.importorskip("torchmetrics.image")


def pictures(count: int, size: int = 48) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8) for _ in range(count)]


def test_a_score_is_the_mean_of_what_torchmetrics_says_of_each_picture() -> None:
    """Structural similarity against noisy references, one by one through torchmetrics alone."""
    images = pictures(3)
    references = [(each.int() + 20 * place).clamp(0, 255).to(torch.uint8) for place, each in enumerate(images)]
    metric = as_metric(image.StructuralSimilarityIndexMeasure(data_range=1.0))
    assert metric.needs == {"image", "reference"}
    assert metric.higher_is_better is True
    metric.load(torch.device("cpu"))
    rows = metric.observe(image=images, reference=references)
    wanted = [
        image.StructuralSimilarityIndexMeasure(data_range=1.0)(a[None] / 255, b[None] / 255).item()
        for a, b in zip(images, references, strict=True)
    ]
    assert rows[:, 0].tolist() == pytest.approx(wanted, abs=1e-6)
    score = score_rows("ssim", metric, list(rows[:, None]))
    assert score.value == pytest.approx(sum(wanted) / 3, abs=1e-6)
    assert (score.settings["data_range"], score.settings["figure"]) == (1.0, "mean over pictures")
    assert score.versions["torchmetrics"] == torchmetrics.__version__


def test_a_wrapped_metric_keeps_the_contract() -> None:
    """With references, and without."""
    check_metric(TorchMetric(image.PeakSignalNoiseRatio(data_range=1.0)), size=32)
    check_metric(TorchMetric(image.TotalVariation(), pixels="bytes"), size=32)


def test_other_options_are_another_observation() -> None:
    """So that stored rows of one are not taken for those of the other."""
    narrow, wide = (TorchMetric(image.StructuralSimilarityIndexMeasure(data_range=r)) for r in (1.0, 2.0))
    assert narrow.observation != wide.observation
    assert narrow.observation == TorchMetric(image.StructuralSimilarityIndexMeasure(data_range=1.0)).observation


class Net(torch.nn.Module):
    """Features of a picture for the FID of torchmetrics."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layer(pixels.float().mean((2, 3)))


def test_a_metric_of_sets_is_the_figure_of_torchmetrics_itself() -> None:
    """FID tells real pictures from others; it has no rows, and says that it has no interval."""
    images = pictures(8)
    references = [255 - each // 2 for each in images]

    def fresh() -> Any:
        return image.FrechetInceptionDistance(feature=Net(), input_img_size=(3, 48, 48))

    metric = TorchMetric(fresh(), pixels="bytes")
    assert metric.whole_set
    assert metric.needs == {"image", "reference"}
    metric.load(torch.device("cpu"))
    rows = torch.cat([metric.observe(image=images[:5], reference=references[:5]),
                      metric.observe(image=images[5:], reference=references[5:])])  # fmt: skip
    assert rows.shape == (8, 0)
    plain = fresh()
    plain.update(torch.stack(images), real=False)
    plain.update(torch.stack(references), real=True)
    assert metric.score(rows) == pytest.approx(plain.compute().item(), rel=1e-4)
    assert "no interval" in metric.remarks(8, 0)[0]


def test_arguments_without_a_known_name_are_asked_for() -> None:
    """And given, they count."""

    class Strange:
        def update(self, left: Tensor) -> None:
            self.value = left.mean()

        def compute(self) -> Tensor:
            return self.value

        def reset(self) -> None:
            self.value = torch.tensor(0.0)

    with pytest.raises(ConfigError, match=r"arguments of Strange.update are called left; say what they are"):
        as_metric(Strange())
    metric = TorchMetric(Strange(), arguments=("image",))
    metric.load(torch.device("cpu"))
    assert metric.score(metric.observe(image=[torch.full((3, 4, 4), 51, dtype=torch.uint8)])) == pytest.approx(0.2)


def test_what_is_no_metric_is_refused() -> None:
    """In a sentence that says what one has."""
    with pytest.raises(ConfigError, match=r"int is no metric: it must have load, observe and score"):
        as_metric(3)


def test_pictures_that_it_cannot_take_are_refused_with_what_to_do() -> None:
    """A metric that wants uint8 and is shown floats."""
    metric = TorchMetric(image.TotalVariation())
    metric.load(torch.device("cpu"))
    with pytest.raises(DataError, match=r"TotalVariation cannot measure one picture by itself: .* pixels='bytes'"):
        metric.observe(image=[torch.zeros(3, 0, dtype=torch.uint8)])
