"""The built-in filters: against independent references, by property, and by their error rates on real photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from attrs import frozen
from PIL import Image, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter
from skimage.measure import blur_effect, shannon_entropy

from d4k import Filter, Limit, Picture, create
from d4k.datasets.filters import DetailFilter, judge
from d4k.datasets.filters.blur import blur_of
from d4k.datasets.filters.detail import haar
from d4k.datasets.filters.jpeg import quality_of
from d4k.images import open_picture
from d4k.testing import check_filter

NAMES = ("size", "detail", "noise", "blur", "jpeg", "upscaled", "border")
PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg", "cell.png",
    "camera.png", "coins.png", "clock_motion.png", "ihc.png", "brick.png", "grass.png", "gravel.png",
    "motorcycle_left.png",
)  # fmt: skip
Change = Callable[[Image.Image], Image.Image]


@cache
def photograph(name: str) -> Image.Image:
    import skimage

    return open_picture(Path(skimage.__file__).parent / "data" / name)


def picture(image: Image.Image, file: Path | None = None) -> Picture:
    return Picture(np.asarray(image), file)


def enlarged(factor: float, kernel: Image.Resampling) -> Change:
    def change(image: Image.Image) -> Image.Image:
        small = image.resize([round(side / factor) for side in image.size], Image.Resampling.LANCZOS)
        return small.resize(image.size, kernel)

    return change


def compressed(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def noisy(sigma: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image, np.float64)
        noise = np.random.default_rng(0).normal(0, sigma, pixels.shape)
        return Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8))

    return change


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((3, 5, *image.size))


RATES: tuple[tuple[str, str, Change, int], ...] = (
    ("upscaled", "2 times, Lanczos", enlarged(2, Image.Resampling.LANCZOS), 13),
    ("upscaled", "2 times, bicubic", enlarged(2, Image.Resampling.BICUBIC), 13),
    ("upscaled", "4 times, bicubic", enlarged(4, Image.Resampling.BICUBIC), 13),
    ("upscaled", "2 times, then JPEG 90", lambda i: compressed(90)(enlarged(2, Image.Resampling.LANCZOS)(i)), 5),
    ("jpeg", "quality 30", compressed(30), 12),
    ("jpeg", "quality 50, cropped", lambda i: cropped(compressed(50)(i)), 6),
    ("noise", "sigma 15", noisy(15), 15),
    ("blur", "Gaussian, sigma 4", lambda i: i.filter(ImageFilter.GaussianBlur(4)), 13),
    ("border", "frame of 8 pixels", lambda i: ImageOps.expand(i, 8, "white"), 15),
    ("border", "letterbox", lambda i: ImageOps.expand(i, (0, 30), "black"), 14),
)
"""Filter, what was done to the fifteen photographs, and how many of them the filter catches with its defaults."""

WRONGLY = {"upscaled": 0, "jpeg": 0, "noise": 1, "blur": 0, "border": 0, "detail": 0}
"""Of the fifteen photographs as they are, how many each filter rejects with its defaults."""


def rejected(name: str, change: Change) -> list[str]:
    """The photographs that a filter rejects once they are changed."""
    chosen = create("filter", name)
    return [p for p in PHOTOGRAPHS if judge(chosen, chosen.measure(picture(change(photograph(p)))))]


@pytest.mark.parametrize(("name", "done", "change", "caught"), RATES)
def test_degraded_photographs_are_caught(name: str, done: str, change: Change, caught: int) -> None:
    """As many as the table in the docs says, or more."""
    assert len(rejected(name, change)) >= caught, rejected(name, change)


@pytest.mark.parametrize("name", WRONGLY)
def test_photographs_as_they_are_stay(name: str) -> None:
    """But for those that the table in the docs counts."""
    assert len(rejected(name, lambda image: image)) <= WRONGLY[name], rejected(name, lambda image: image)


@pytest.mark.parametrize("name", NAMES)
def test_built_in_filters_keep_the_contract(name: str) -> None:
    """Each passes the check, and is the protocol's."""
    check_filter(create("filter", name))
    assert isinstance(create("filter", name), Filter)


def test_blur_is_that_of_scikit_image() -> None:
    """Within a tenth: scikit-image takes the Sobel filter in place of the difference of neighbours."""
    grey = np.asarray(photograph("camera.png").convert("L"), np.float32)[100:356, 100:356]
    for sigma in (0, 1, 2, 4):
        soft = gaussian_filter(grey, sigma)
        assert blur_of(soft[None])[0] == pytest.approx(blur_effect(soft, h_size=11), abs=0.1)


def test_entropy_is_that_of_scikit_image() -> None:
    """Of the histogram of greys."""
    found = DetailFilter().measure(picture(photograph("coffee.png")))["entropy"]
    assert found == pytest.approx(shannon_entropy(np.asarray(photograph("coffee.png").convert("L"))), abs=1e-9)


def test_the_haar_level_keeps_the_energy() -> None:
    """It is orthonormal."""
    windows = np.random.default_rng(0).normal(size=(2, 16, 16))
    assert sum(np.square(subband).sum() for subband in haar(windows)) == pytest.approx(np.square(windows).sum())


@pytest.mark.parametrize("sigma", [4.0, 10.0, 20.0])
def test_noise_is_measured_in_grey_levels(sigma: float) -> None:
    """Of a slope with noise of a known standard deviation, within a tenth."""
    rows = np.linspace(60, 190, 512)[:, None] + np.random.default_rng(1).normal(0, sigma, (512, 512))
    grey = Image.fromarray(rows.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    assert create("filter", "noise").measure(picture(grey))["noise"] == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("quality", [10, 35, 50, 75, 90, 98])
def test_quality_is_read_off_the_file(quality: int, tmp_path: Path) -> None:
    """On libjpeg's scale; a file of another format has none, which is no reason to reject it."""
    photograph("camera.png").save(tmp_path / "a.jpg", quality=quality)
    photograph("camera.png").save(tmp_path / "a.png")
    chosen = create("filter", "jpeg", max_blocking=99)
    with Image.open(tmp_path / "a.jpg") as image:
        assert quality_of(image.quantization[0]) == quality
    figures = chosen.measure(picture(photograph("camera.png"), tmp_path / "a.jpg"))
    assert (judge(chosen, figures) is None) == (quality >= 75)
    figures = chosen.measure(picture(photograph("camera.png"), tmp_path / "a.png"))
    assert np.isnan(figures["quality"])
    assert judge(chosen, figures) is None


def test_the_bandwidth_is_the_inverse_of_the_enlargement() -> None:
    """Of white noise that was enlarged with an ideal low-pass filter."""
    noise = np.fft.fftshift(np.fft.fft2(np.random.default_rng(0).normal(size=(512, 512))))
    frequency = np.abs(np.linspace(-1, 1, 512, endpoint=False))
    for share in (0.25, 0.5, 0.75):
        kept = noise * (np.maximum(frequency[:, None], frequency[None]) < share)
        # power that falls with the square of the frequency, as that of photographs does
        kept = kept / np.maximum(np.hypot(frequency[:, None], frequency[None]), 0.01)
        pixels = np.real(np.fft.ifft2(np.fft.ifftshift(kept)))
        grey = ((pixels / np.abs(pixels).max()) * 120 + 128).round().astype(np.uint8)
        found = create("filter", "upscaled").measure(picture(Image.fromarray(grey).convert("RGB")))["bandwidth"]
        assert found == pytest.approx(share, abs=0.04)


def test_a_mark_of_one_colour_is_caught_and_clipped_whites_are_not() -> None:
    """A fifth of the picture is painted."""
    for colour, caught in (((200, 30, 30), True), ((255, 255, 255), False)):
        image = photograph("astronaut.png").copy()
        image.paste(colour, (0, 100, 512, 220))
        chosen = create("filter", "border")
        assert (judge(chosen, chosen.measure(picture(image))) is not None) is caught


def test_the_reason_names_figure_and_limit() -> None:
    """In words, rounded to what a person reads."""
    chosen = create("filter", "size", min_side=2048)
    assert judge(chosen, chosen.measure(picture(photograph("camera.png")))) == "short side 512, at least 2048"
    assert judge(create("filter", "size", min_side=100, max_aspect=1), {"short_side": 512, "aspect": 1.5}) == (
        "aspect 1.5, at most 1"
    )


def test_windows_begin_at_blocks_and_are_bounded() -> None:
    """64 of 256 pixels at most; a picture smaller than that is one window."""
    large, small = Picture(np.zeros((4096, 4100, 3), np.uint8)), Picture(np.zeros((40, 60, 3), np.uint8))
    assert large.windows.shape == (64, 256, 256)
    assert small.windows.shape == (1, 40, 40)


@frozen
class Broken:
    """Breaks one clause of the contract."""

    limit: float = 1.0
    how: str = ""

    @property
    def figures(self) -> dict[str, str]:
        return {"no figures": {}, "strange name": {"a b": "what"}, "no words": {"a": ""}}.get(self.how, {"a": "what"})

    @property
    def limits(self) -> list[Limit]:
        figure = "b" if self.how == "other figure" else "a"
        option = "other" if self.how == "other option" else "limit"
        return [Limit(figure, option, least=None if self.how == "no line" else self.limit)]

    def measure(self, given: Picture) -> dict[str, float]:
        if self.how == "changes":
            given.pixels[0, 0] = 255 - given.pixels[0, 0]
        if self.how == "another":
            return {"a": float(np.random.default_rng().random())}
        return {"missing": {}, "infinite": {"a": float("inf")}, "words": {"a": "much"}}.get(self.how, {"a": 1.0})  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("no figures", "at least one figure"),
        ("strange name", "form of an identifier"),
        ("no words", "explained in words"),
        ("other figure", "'b' is none"),
        ("other option", "'other' is none"),
        ("no line", "draws a line"),
        ("changes", "leaves the pixels as they are"),
        ("another", "same figures again"),
        ("missing", r"measure gives \['a'\], got \[\]"),
        ("infinite", "is finite"),
        ("words", "plain number"),
    ],
)
def test_filters_with_a_fault_fail_the_check(how: str, sentence: str) -> None:
    """One clause each; without a fault it passes."""
    check_filter(Broken())
    with pytest.raises(AssertionError, match=sentence):
        check_filter(Broken(how=how))
