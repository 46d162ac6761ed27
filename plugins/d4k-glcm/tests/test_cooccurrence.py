from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import shannon_entropy
from torch.overrides import TorchFunctionMode

from d4k import DataError
from d4k_glcm import tensors
from d4k_glcm.cooccurrence import (
    PROPERTIES,
    PUBLISHED,
    Form,
    cut_patches,
    grey_levels,
    patch_entropies,
    patch_properties,
)

ANGLES = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]


FORMS = [PUBLISHED, Form(symmetric=True), Form(levels=32, distances=(1,)), Form(256, (2, 40), symmetric=True)]

GOLDEN = [
    (3.534562218005126, 11.140060757051838),
    (0.3009445334414848, 5.937236611023468),
    (0.010523010572148415, 1.584731825903803),
    (0.01137121575767915, 0.00685136789474684),
    (0.010011276569426172, 1.1260298527264987),
    (0.6971949989563433, 5.192505569368567),
]


def matrices(patch, form=PUBLISHED):
    return graycomatrix(patch, form.distances, ANGLES, levels=form.levels, symmetric=form.symmetric, normed=True)


def textbook(cells):
    return -(cells * np.log2(cells, where=cells > 0, out=np.zeros_like(cells))).sum((0, 1)).mean()


def expected(patches, form=PUBLISHED):
    every = [matrices(patch, form) for patch in patches]
    return np.array([(shannon_entropy(cells), textbook(cells)) for cells in every])


def expected_properties(patches, form=PUBLISHED):
    every = [matrices(patch, form) for patch in patches]
    return np.array([[graycoprops(cells, name).mean() for name in PROPERTIES] for cells in every])


def textures(levels):
    """Noise, a slope, stripes, two almost flat patches, and a corner of a photograph."""
    noise = np.random.default_rng(0).integers(0, levels, (64, 64))
    slope = np.indices((64, 64)).sum(0) * (levels - 1) // 126
    stripes = np.indices((64, 64))[1] % 3 * (levels - 1) // 2
    speck, half = np.full((64, 64), levels // 2), np.full((64, 64), levels - 1)
    speck[20, 30], half[:32] = 0, levels - 2
    photograph = data.astronaut()[100:164, 100:164, 1] // (256 // levels)
    return np.stack([noise, slope, stripes, speck, half, photograph]).astype(np.uint8)


def checkerboard():
    return (np.indices((64, 64)).sum(0) % 2 * 63).astype(np.uint8)


@given(seed=st.integers(0, 2**32 - 1), low=st.integers(0, 63), span=st.integers(1, 64))
@settings(max_examples=25, deadline=None)
def test_random_patches_score_as_scikit_image_says(seed, low, span):
    """Both entropies equal graycomatrix + shannon_entropy and -sum p log2 p to 1e-9, for every range of levels."""
    patch = np.random.default_rng(seed).integers(low, min(64, low + span), (1, 64, 64), dtype=np.uint8)
    np.testing.assert_allclose(patch_entropies(patch), expected(patch), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina"])
def test_photographs_score_as_scikit_image_says(name):
    """Every eighth patch of a photograph equals the scikit-image pipeline to 1e-9."""
    photo = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)
    patches = cut_patches(grey_levels(photo))[::8]
    np.testing.assert_allclose(patch_entropies(patches), expected(patches), rtol=0, atol=1e-9)


@pytest.mark.parametrize("level", [0, 1, 31, 63])
def test_a_constant_patch_scores_as_scikit_image_says(level):
    """All pairs in one cell: textbook entropy 0, published entropy that of sixteen ones among 65536 cells."""
    patch = np.full((1, 64, 64), level, np.uint8)
    np.testing.assert_allclose(patch_entropies(patch), expected(patch), rtol=0, atol=1e-9)
    assert patch_entropies(patch)[0, 1] == 0


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_has_the_entropies_of_scikit_image(form):
    """Other levels, distances and symmetric matrices, of six textures: graycomatrix and shannon_entropy to 1e-9."""
    patches = textures(form.levels)
    np.testing.assert_allclose(patch_entropies(patches, form), expected(patches, form), rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_has_the_properties_of_scikit_image(form):
    """Contrast, dissimilarity, homogeneity, energy, correlation and ASM as graycoprops has them, to 1e-9."""
    patches = textures(form.levels)
    np.testing.assert_allclose(patch_properties(patches, form), expected_properties(patches, form), atol=1e-9)


def test_the_properties_of_a_constant_patch_are_those_of_scikit_image():
    """No contrast, and a correlation of 1, which scikit-image defines where nothing varies."""
    patch = np.full((1, 64, 64), 17, np.uint8)
    np.testing.assert_allclose(patch_properties(patch), expected_properties(patch), rtol=0, atol=1e-9)
    assert dict(zip(PROPERTIES, patch_properties(patch)[0], strict=True))["correlation"] == 1


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_tensors_have_the_entropies_of_the_loops(form):
    """What accelerators compute equals the loops to 1e-12, also in blocks that hold less than all patches."""
    patches = textures(form.levels)
    for memory in (2**28, 2**20):
        found = tensors.patch_entropies(torch.from_numpy(patches), form, memory=memory)
        assert (found.dtype, found.device.type) == (torch.float64, "cpu")
        np.testing.assert_allclose(found.numpy(), patch_entropies(patches, form), rtol=0, atol=1e-12)


class Largest(TorchFunctionMode):
    """Watches how many bytes the largest tensor has."""

    size = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.nbytes)
        return result


def test_tensors_are_counted_in_blocks_of_the_memory_that_is_given():
    """No tensor is larger than the memory; with more of it, tensors of all patches are."""
    patches = torch.zeros(40, 64, 64, dtype=torch.uint8)
    with Largest() as bounded:
        tensors.patch_entropies(patches, memory=2**21)
    with Largest() as free:
        tensors.patch_entropies(patches, memory=2**30)
    assert bounded.size <= 2**21
    assert free.size > 3 * 2**21


def test_scores_are_those_that_were_published_before():
    """Of six textures, to 1e-12: the figures of the first release."""
    np.testing.assert_allclose(patch_entropies(textures(64)), GOLDEN, rtol=0, atol=1e-12)


def test_equal_values_of_different_offsets_count_together():
    """In a checkerboard, halves of different pair counts, 2016/4032 and 1952/3904, are one value."""
    patch = checkerboard()
    values, counts = np.unique(matrices(patch), return_counts=True)
    assert counts[values == 0.5].item() > 4
    np.testing.assert_allclose(patch_entropies(patch[None]), expected(patch[None]), rtol=0, atol=1e-9)


def test_patches_are_independent():
    """A patch scores the same alone and behind others."""
    patches = np.stack([checkerboard(), *np.random.default_rng(0).integers(0, 64, (4, 64, 64), dtype=np.uint8)])
    alone = np.concatenate([patch_entropies(patch[None]) for patch in patches])
    np.testing.assert_array_equal(patch_entropies(patches), alone)


def test_threads_do_not_change_the_scores():
    """Sharing patches among threads leaves every score and the order as they are."""
    patches = np.random.default_rng(1).integers(0, 64, (5, 64, 64), dtype=np.uint8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = patch_entropies(patches)
        torch.set_num_threads(3)
        np.testing.assert_array_equal(patch_entropies(patches), single)
    finally:
        torch.set_num_threads(before)


def test_grey_is_that_of_the_published_formula():
    """`((R*4899 + G*9617 + B*1868 + 8192) >> 14) // 4` for random colours."""
    image = np.random.default_rng(0).integers(0, 256, (3, 90, 70), dtype=np.uint8)
    red, green, blue = image.astype(int)
    grey = (red * 4899 + green * 9617 + blue * 1868 + 8192 >> 14) // 4
    np.testing.assert_array_equal(grey_levels(torch.from_numpy(image)), grey)


@pytest.mark.parametrize("levels", [2, 8, 256])
def test_grey_is_quantised_to_the_levels_that_are_asked_for(levels):
    """256 grey values divided among that many levels."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 70), dtype=np.uint8))
    np.testing.assert_array_equal(grey_levels(image, levels), grey_levels(image, 256) // (256 // levels))


def test_grey_is_the_same_whatever_the_strides():
    """A permuted picture has the grey of a contiguous one."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 70, 3), dtype=np.uint8)).permute(2, 0, 1)
    np.testing.assert_array_equal(grey_levels(image), grey_levels(image.contiguous()))


def test_grey_is_within_one_level_of_opencv():
    """OpenCV's own conversion, whose vectorised forms may round otherwise, differs by one grey value at most."""
    image = np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    theirs = cv2.cvtColor(image[..., ::-1], cv2.COLOR_BGR2GRAY) // 4
    ours = grey_levels(torch.from_numpy(image).permute(2, 0, 1))
    assert np.abs(theirs.astype(int) - ours.astype(int)).max() <= 1


def test_a_multiple_of_the_patch_is_cut_without_overlap():
    """128x192 gives the six patches of the published computation, row by row."""
    levels = np.random.default_rng(0).integers(0, 64, (128, 192), dtype=np.uint8)
    grid = [levels[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64, 128)]
    np.testing.assert_array_equal(cut_patches(levels), np.stack(grid))


@given(height=st.integers(64, 200), width=st.integers(64, 200))
@settings(max_examples=20, deadline=None)
def test_every_pixel_is_in_a_patch(height, width):
    """Whatever the size, the patches cover the image, with no more of them than needed."""
    places = np.arange(height * width).reshape(height, width)
    patches = cut_patches(places)
    assert len(np.unique(patches)) == height * width
    assert len(patches) == -(-height // 64) * -(-width // 64)


@pytest.mark.parametrize(("height", "width"), [(63, 64), (64, 63), (1, 1)])
def test_an_image_smaller_than_a_patch_is_an_error(height, width):
    """The message names the size and the least size."""
    with pytest.raises(DataError, match=f"image of {width}x{height} pixels is smaller.*64x64 is the least"):
        cut_patches(np.zeros((height, width), np.uint8))
