from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.feature import graycomatrix
from skimage.measure import shannon_entropy

from d4k import DataError, create
from d4k.testing import check_metric
from d4k_glcm.metrics import CompressionRatio, GLCMEntropy, GLCMScore

METRICS = [GLCMScore, GLCMEntropy, CompressionRatio]
NAMES = ["glcm", "glcm-entropy", "compression-ratio"]


def photo(name, rows=slice(128), columns=slice(128)):
    return torch.from_numpy(getattr(data, name)()[rows, columns]).permute(2, 0, 1)[None].contiguous()


@pytest.mark.parametrize("metric", METRICS)
def test_each_metric_keeps_the_contract(metric):
    """d4k's own contract check passes."""
    check_metric(metric())


@pytest.mark.parametrize(("name", "metric"), list(zip(NAMES, METRICS, strict=True)))
def test_each_metric_is_registered(name, metric):
    """`create("metric", name)` makes it."""
    assert isinstance(create("metric", name), metric)


def test_the_published_score_is_the_mean_over_patches_then_images():
    """Computed with OpenCV's formula, scikit-image and two plain loops."""
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    images = [photo("astronaut"), photo("coffee", slice(64), slice(192))]
    means = []
    for image in images:
        red, green, blue = image[0].int().numpy()
        levels = ((red * 4899 + green * 9617 + blue * 1868 + 8192 >> 14) // 4).astype(np.uint8)
        starts = [(y, x) for y in range(0, levels.shape[0], 64) for x in range(0, levels.shape[1], 64)]
        patches = [levels[y : y + 64, x : x + 64] for y, x in starts]
        cells = [graycomatrix(patch, [1, 2, 3, 4], angles, levels=64, normed=True) for patch in patches]
        means.append(np.mean([shannon_entropy(array) for array in cells]))
    metric = GLCMScore()
    for image in images:
        metric.update(image=image)
    assert metric.compute() == pytest.approx(np.mean(means), abs=1e-9)


def test_the_two_entropies_are_told_apart():
    """On a photograph the textbook entropy is several bits, the published score below one and a half."""
    published, textbook = GLCMScore(), GLCMEntropy()
    for metric in (published, textbook):
        metric.update(image=photo("astronaut"))
    assert 0.1 < published.compute() < 1.5
    assert 3 < textbook.compute() < 12


def test_the_compression_ratio_is_raw_bytes_to_jpeg_bytes_of_all_images():
    """Sizes are added over images before they are divided; bits per pixel say the same."""
    images = [photo("astronaut"), photo("coffee", slice(100), slice(70))]
    metric, total, pixels = CompressionRatio(), 0, 0
    for image in images:
        metric.update(image=image)
        file = BytesIO()
        Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=95)
        total += len(file.getvalue())
        pixels += image.shape[2] * image.shape[3]
    result = metric.compute()
    assert list(result) == ["compression-ratio", "bits-per-pixel"]
    assert result["compression-ratio"] == pixels * 3 / total
    assert result["bits-per-pixel"] == total * 8 / pixels


def test_directions():
    """Detail raises both entropies and lowers the compression ratio."""
    assert [metric.higher_is_better for metric in METRICS] == [True, True, False]
    smooth = torch.full((1, 3, 128, 128), 128, dtype=torch.uint8)
    for metric in (GLCMScore, GLCMEntropy):
        scores = []
        for image in (smooth, photo("astronaut")):
            measure = metric()
            measure.update(image=image)
            scores.append(measure.compute())
        assert scores[0] < scores[1]


@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_is_its_images_one_by_one(metric):
    """Two images at once or one after the other: the same score."""
    images = torch.cat([photo("astronaut"), photo("chelsea")])
    together, apart = metric(), metric()
    together.update(image=images)
    for image in images:
        apart.update(image=image[None])
    assert together.compute() == apart.compute()


@pytest.mark.parametrize("metric", METRICS)
def test_reset_forgets(metric):
    """After reset only what came later counts, and nothing is an error."""
    used, fresh = metric(), metric()
    used.update(image=photo("chelsea"))
    used.reset()
    with pytest.raises(DataError, match="no image was measured"):
        used.compute()
    for measure in (used, fresh):
        measure.update(image=photo("astronaut"))
    assert used.compute() == fresh.compute()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("image", [torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.uint8)])
def test_anything_but_uint8_rgb_is_an_error(metric, image):
    """The message says what is allowed and what came."""
    with pytest.raises(DataError, match=r"uint8 \(B, 3, H, W\), got"):
        metric().update(image=image)
