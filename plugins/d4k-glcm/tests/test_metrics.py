from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import shannon_entropy

from d4k import ConfigError, DataError, create
from d4k.evaluation import score_rows
from d4k.testing import check_metric
from d4k_glcm import metrics
from d4k_glcm.cooccurrence import PROPERTIES
from d4k_glcm.metrics import GLCMEntropy, GLCMProperty, GLCMScore

ANGLES = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
METRICS = [GLCMScore, GLCMEntropy, GLCMProperty]
NAMES = ["glcm", "glcm-entropy", "glcm-property"]


def photo(name, rows=slice(128), columns=slice(128)):
    return torch.from_numpy(getattr(data, name)()[rows, columns]).permute(2, 0, 1).contiguous()


def quantised(image, levels):
    red, green, blue = image.int().numpy()
    return ((red * 4899 + green * 9617 + blue * 1868 + 8192 >> 14) // (256 // levels)).astype(np.uint8)


def matrices(image, levels=64, distances=(1, 2, 3, 4), symmetric=False):
    """Of each patch, by scikit-image and two plain loops."""
    grey = quantised(image, levels)
    starts = [(y, x) for y in range(0, grey.shape[0], 64) for x in range(0, grey.shape[1], 64)]
    return [
        graycomatrix(grey[y : y + 64, x : x + 64], distances, ANGLES, levels, symmetric=symmetric, normed=True)
        for y, x in starts
    ]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("options", [{}, {"symmetric": True, "levels": 16, "distances": [1]}])
def test_each_metric_keeps_the_contract(metric, options):
    """d4k's own contract check passes, in the published form and another."""
    check_metric(metric(**options))


@pytest.mark.parametrize(("name", "metric"), list(zip(NAMES, METRICS, strict=True)))
def test_each_metric_is_registered(name, metric):
    """`create("metric", name)` makes it."""
    assert isinstance(create("metric", name), metric)


@pytest.mark.parametrize("options", [{}, {"symmetric": True}, {"levels": 16, "distances": (1, 3)}])
def test_the_score_is_the_mean_over_patches_then_images(options):
    """Computed with OpenCV's formula, scikit-image and two plain loops, in the published form and in others."""
    images = [photo("astronaut"), photo("coffee", slice(64), slice(192))]
    means = [np.mean([shannon_entropy(cells) for cells in matrices(image, **options)]) for image in images]
    metric = GLCMScore(**options)
    assert metric.score(metric.observe(images)) == pytest.approx(np.mean(means), abs=1e-9)


def test_a_property_is_the_mean_over_offsets_patches_and_images():
    """The property that is asked for comes first, and all six equal scikit-image's."""
    images = [photo("astronaut"), photo("coffee", slice(64), slice(192))]
    metric = GLCMProperty(property="homogeneity", symmetric=True)
    found = metric.score(metric.observe(images))
    assert list(found) == ["homogeneity", *(name for name in PROPERTIES if name != "homogeneity")]
    for name, value in found.items():
        every = [[graycoprops(cells, name).mean() for cells in matrices(image, symmetric=True)] for image in images]
        assert value == pytest.approx(np.mean([np.mean(means) for means in every]), abs=1e-9)


def test_metrics_of_one_kind_and_form_share_their_rows():
    """The two entropies do, and so do all properties; another form, or the other kind, has rows of its own."""
    shared = GLCMScore().observation
    assert GLCMEntropy().observation == shared
    assert torch.equal(GLCMEntropy().observe([photo("astronaut")]), GLCMScore().observe([photo("astronaut")]))
    assert GLCMProperty(property="ASM").observation == GLCMProperty(property="contrast").observation
    others = [GLCMProperty(), GLCMScore(symmetric=True), GLCMScore(levels=32), GLCMScore(distances=(1,))]
    for other in others:
        assert other.observation != shared


def test_the_two_entropies_are_told_apart():
    """On a photograph the textbook entropy is several bits, the published score below one and a half."""
    rows = GLCMScore().observe([photo("astronaut")])
    assert 0.1 < GLCMScore().score(rows) < 1.5
    assert 3 < GLCMEntropy().score(rows) < 12


@pytest.mark.parametrize("metric", [GLCMScore(), GLCMEntropy(), *(GLCMProperty(property=name) for name in PROPERTIES)])
def test_more_detail_is_better_in_the_direction_that_is_said(metric):
    """A photograph beside the same one with noise of 40 levels."""
    smooth = photo("astronaut")
    noise = torch.randint(-40, 41, smooth.shape, generator=torch.Generator().manual_seed(0))
    rough = (smooth.int() + noise).clamp(0, 255).byte()
    plain, detailed = (score_rows("m", metric, [metric.observe([each])]).value for each in (smooth, rough))
    assert (detailed > plain) == metric.higher_is_better


def test_weighted_scores_are_scores_of_resamples():
    """Weights of 2, 0 and 1 score as the rows repeated."""
    images = [photo("astronaut"), photo("chelsea"), photo("coffee")]
    for metric in (GLCMScore(), GLCMEntropy(), GLCMProperty(property="energy")):
        rows = metric.observe(images)
        found = metric.weighted_scores(rows, torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64))
        wanted = score_rows("m", metric, [rows[0:1], rows[0:1], rows[2:3]], resamples=0).value
        assert found.tolist() == [pytest.approx(wanted, abs=1e-12)]


@pytest.mark.parametrize("metric", METRICS)
def test_a_map_holds_the_score_of_every_patch(metric):
    """Rows and columns of a picture of two by three patches, the last ones aligned to its border."""
    image = photo("astronaut", slice(100), slice(160))
    found = metric().patch_map(image)
    assert found.shape == (2, 3)
    last = image[:, -64:, -64:]
    value = score_rows("m", metric(), [metric().observe([last])]).value
    assert float(found[1, 2]) == pytest.approx(value, abs=1e-12)


def test_a_metric_that_was_placed_on_an_accelerator_counts_there(monkeypatch):
    """After load("cuda") patches go through the tensors' path; here its tensors stay on the CPU."""
    metric = GLCMScore()
    wanted = metric.observe([photo("astronaut")])
    metric.load(torch.device("cuda"))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
    seen, real = [], metrics.tensors.patch_entropies
    monkeypatch.setattr(metrics.tensors, "patch_entropies", lambda *given: seen.append(given) or real(*given))
    found = metric.observe([photo("astronaut")])
    assert len(seen) == 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_another_form_than_the_published_one_says_so():
    """The remarks of the published form name published scores; those of others that none compares."""
    assert "0.58 and 0.79" in GLCMScore().remarks(3, 0)[0]
    assert "Not the published form" in GLCMScore(symmetric=True).remarks(3, 0)[0]
    assert "`glcm`" in GLCMEntropy().remarks(3, 0)[0]
    assert "Not the published form" in GLCMEntropy(levels=8).remarks(3, 0)[1]


def test_the_options_are_the_settings_of_the_score():
    """A score of another form names it."""
    metric = GLCMProperty(property="ASM", symmetric=True, distances=[1])
    settings = score_rows("glcm-property", metric, [metric.observe([photo("chelsea")])]).settings
    assert settings["property"] == "ASM"
    assert (settings["levels"], settings["distances"], settings["symmetric"]) == (64, (1,), True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"levels": 63}, "levels must be one of 2, 4, 8, 16, 32, 64, 128, 256, got 63"),
        ({"distances": [0]}, "distances must be different whole numbers from 1 to 63"),
        ({"distances": [1, 1]}, "distances must be different whole numbers"),
        ({"distances": []}, "distances must be different whole numbers"),
        ({"symmetric": "yes"}, "symmetric"),
        ({"property": "entropy"}, "property"),
    ],
)
def test_an_option_out_of_range_is_refused(options, reason):
    """The message names the option and what it may be."""
    with pytest.raises(ConfigError, match=reason):
        create("metric", "glcm-property", **options)


@pytest.mark.parametrize("metric", METRICS)
def test_no_pictures_have_no_score(metric):
    """The message says that one is needed."""
    with pytest.raises(DataError, match="no picture was measured"):
        metric().score(torch.empty(0, 6))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("image", [torch.zeros(3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.uint8)])
def test_anything_but_uint8_rgb_is_an_error(metric, image):
    """The message says what is allowed and what came."""
    with pytest.raises(DataError, match=r"uint8 \(3, H, W\), got"):
        metric().observe(image=[image])
