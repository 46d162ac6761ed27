from __future__ import annotations

from io import BytesIO

import PIL
import pytest
import torch
from PIL import Image
from skimage import data

from d4k import ConfigError, DataError, create
from d4k.evaluation import score_rows
from d4k.testing import check_metric
from d4k_glcm.compression import CompressionRatio


def photo(name, rows=slice(128), columns=slice(128)):
    return torch.from_numpy(getattr(data, name)()[rows, columns]).permute(2, 0, 1).contiguous()


def jpeg(image, quality=95):
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.mark.parametrize("source", ["encoded", "file"])
def test_both_sources_keep_the_contract(source):
    """d4k's own contract check passes."""
    check_metric(create("metric", "compression-ratio", source=source))


def test_the_ratio_is_raw_bytes_to_jpeg_bytes_of_all_images():
    """Sizes are added over images before they are divided; bits per pixel say the same."""
    images = [photo("astronaut"), photo("coffee", slice(100), slice(70))]
    metric = CompressionRatio()
    result = metric.score(metric.observe(images))
    total, pixels = sum(len(jpeg(image)) for image in images), 128 * 128 + 100 * 70
    assert list(result) == ["compression-ratio", "bits-per-pixel"]
    assert result["compression-ratio"] == pixels * 3 / total
    assert result["bits-per-pixel"] == total * 8 / pixels


def test_files_are_measured_as_they_lie(tmp_path):
    """With source "file" the bytes are those of the files, whatever quality they have."""
    images = [photo("astronaut"), photo("chelsea")]
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for image, file, quality in zip(images, files, (50, 80), strict=True):
        file.write_bytes(jpeg(image, quality))
    metric = CompressionRatio(source="file")
    assert metric.needs == {"image", "file"}
    total = sum(file.stat().st_size for file in files)
    result = metric.score(metric.observe(image=images, file=files))
    assert result["compression-ratio"] == 2 * 128 * 128 * 3 / total
    assert CompressionRatio().needs == {"image"}


def test_the_two_sources_have_rows_and_settings_of_their_own():
    """A score says whose bytes it counted, and with which encoder."""
    encoded, file = CompressionRatio(), CompressionRatio(source="file")
    assert encoded.observation != file.observation
    score = score_rows("compression-ratio", encoded, [encoded.observe([photo("chelsea")])])
    assert (score.settings["source"], score.settings["quality"]) == ("encoded", 95)
    assert score.versions["pillow"] == PIL.__version__
    assert file.settings["source"] == "file"
    assert "as they lie" in file.remarks(1, 0)[0]


def test_detail_lowers_the_ratio():
    """As the direction says."""
    metric = CompressionRatio()
    flat = torch.full((3, 128, 128), 128, dtype=torch.uint8)
    scores = [metric.score(metric.observe([image]))["compression-ratio"] for image in (flat, photo("astronaut"))]
    assert scores[0] > scores[1]
    assert metric.higher_is_better is False


def test_weighted_scores_are_scores_of_resamples():
    """Weights of 2, 0 and 1 score as the rows repeated."""
    metric = CompressionRatio()
    rows = metric.observe([photo("astronaut"), photo("chelsea"), photo("coffee")])
    found = metric.weighted_scores(rows, torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64))
    assert found.tolist() == [pytest.approx(metric.score(rows[[0, 0, 2]])["compression-ratio"], abs=1e-12)]


def test_a_map_holds_the_ratio_of_every_patch():
    """Two by two patches of 256 pixels, the last ones aligned to the border of 400x300 pixels."""
    image = photo("astronaut", slice(300), slice(400))
    found = CompressionRatio().patch_map(image)
    assert found.shape == (2, 2)
    assert float(found[1, 0]) == 256 * 256 * 3 / len(jpeg(image[:, 44:300, :256]))
    assert float(found[0, 1]) == 256 * 256 * 3 / len(jpeg(image[:, :256, 144:400]))


def test_a_picture_smaller_than_a_patch_is_one_patch():
    """Its map is one ratio, that of the picture."""
    image = photo("astronaut", slice(100), slice(70))
    metric = CompressionRatio()
    assert metric.patch_map(image).tolist() == [[metric.score(metric.observe([image]))["compression-ratio"]]]


def test_files_that_cannot_be_measured_are_named(tmp_path):
    """One that is not there, and one without bytes."""
    metric, empty = CompressionRatio(source="file"), tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(DataError, match=r"gone\.jpg: No such file"):
        metric.observe(image=[photo("chelsea")], file=[tmp_path / "gone.jpg"])
    with pytest.raises(DataError, match=r"empty\.jpg is empty"):
        metric.observe(image=[photo("chelsea")], file=[empty])


def test_other_sources_and_pictures_are_refused():
    """The message says what is allowed."""
    with pytest.raises(ConfigError, match="source"):
        create("metric", "compression-ratio", source="disk")
    with pytest.raises(DataError, match=r"uint8 \(3, H, W\), got"):
        CompressionRatio().observe([torch.zeros(3, 64, 64)])
    with pytest.raises(DataError, match="no picture was measured"):
        CompressionRatio().score(torch.empty(0, 2))
