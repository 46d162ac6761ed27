from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from d4k import DataError
from d4k_fid.pixels import PATCH, clean, cut_grid, cut_random, published


def noise(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def stripes(size):
    """Black and white columns in turn."""
    return (torch.arange(size) % 2 * 255).to(torch.uint8).expand(3, size, size)


def bars(height, width):
    """Black, with a white band along each short side."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[..., : width // 8] = image[..., -width // 8 :] = 255
    return image


def test_published_resizes_and_crops_as_torchvision_does():
    """Before the network's own step, which leaves a picture of its input size as it is."""
    image = noise(80, 120)
    both = transforms.Compose([transforms.Resize(50, antialias=True), transforms.CenterCrop(50)])
    found = published(image, 50, size=50, fit="crop", antialias=False)
    assert torch.equal(found, both(image).float())


def test_published_aliases_and_clean_does_not():
    """Columns as fine as pixels become coarse ones, or the grey that they are."""
    seen = published(stripes(300), 100, size=300, fit="crop", antialias=False)
    assert set(seen[0, 0].tolist()) == {0.0, 255.0}
    grey = clean(stripes(300), 100, fit="crop")[:, 5:-5, 5:-5]
    assert (grey - 127.5).abs().max() < 20
    smooth = published(stripes(300), 100, size=300, fit="crop", antialias=True)[:, 5:-5, 5:-5]
    assert (smooth - 127.5).abs().max() < 60


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_clean_is_the_bicubic_filter_of_pillow_without_its_rounding(fit):
    """Of 8-bit pictures Pillow gives the same, rounded twice."""
    image = noise(90, 140)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    if fit == "crop":
        picture = picture.crop((25, 0, 115, 90))
    expected = np.asarray(picture.resize((40, 40), Image.Resampling.BICUBIC)).astype(np.float32)
    found = clean(image, 40, fit=fit).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1.5
    assert np.abs(found - expected).mean() > 0.1
    assert 0 <= found.min() <= found.max() <= 255


def test_clean_is_clipped_to_the_levels_of_a_picture():
    """Where the filter overshoots at an edge."""
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    image[..., 32:] = 255
    found = clean(image, 40, fit="crop")
    assert found.min() == 0
    assert found.max() == 255


@pytest.mark.parametrize("how", ["published", "clean"])
@pytest.mark.parametrize(("height", "width"), [(64, 128), (128, 64)])
def test_crop_loses_the_ends_and_squash_keeps_them(how, height, width):
    """The white bands lie outside the middle square."""
    image = bars(64, 128) if width > height else bars(64, 128).transpose(1, 2)
    for fit, share in (("crop", 0.0), ("squash", 0.25)):
        seen = clean(image, 32, fit=fit) if how == "clean" else published(image, 32, size=32, fit=fit, antialias=False)
        assert seen.shape == (3, 32, 32)
        assert seen.mean().item() / 255 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(("height", "width", "count"), [(299, 299, 1), (598, 299, 2), (700, 600, 9)])
def test_a_grid_covers_every_pixel_once_but_at_the_far_border(height, width, count):
    """Each patch is where it should be: the last ones end at the border."""
    image = noise(height, width)
    patches = cut_grid(image)
    assert patches.shape == (count, 3, PATCH, PATCH)
    assert torch.equal(patches[0], image[:, :PATCH, :PATCH])
    assert torch.equal(patches[-1], image[:, -PATCH:, -PATCH:])
    columns = -(-width // PATCH)
    assert torch.equal(patches[columns - 1], image[:, :PATCH, -PATCH:])


def test_random_patches_are_cut_from_the_picture_at_its_own_places():
    """The same again for the same seed and picture, others for another of either."""
    ramp = torch.arange(400).remainder(256).to(torch.uint8)
    image = torch.stack([ramp.expand(400, 400), ramp[:, None].expand(400, 400), torch.zeros(400, 400).byte()])
    patches = cut_random(image, 8, seed=0)
    assert torch.equal(patches, cut_random(image.clone(), 8, seed=0))
    corners = {(int(patch[1, 0, 0]), int(patch[0, 0, 0])) for patch in patches}
    assert all(len(set(places)) > 4 for places in zip(*corners, strict=True))
    for patch in patches:
        top, left = int(patch[1, 0, 0]), int(patch[0, 0, 0])
        assert torch.equal(patch, image[:, top : top + PATCH, left : left + PATCH])
    assert not torch.equal(patches, cut_random(image, 8, seed=1))
    other = image.clone()
    other[2, 0, 0] = 1
    assert not torch.equal(patches[:, :2], cut_random(other, 8, seed=0)[:, :2])


@pytest.mark.parametrize("cut", [cut_grid, lambda image: cut_random(image, 2, 0)])
def test_a_picture_smaller_than_a_patch_is_an_error(cut):
    """Its size is named, and the least."""
    with pytest.raises(DataError, match="400x298 pixels is smaller than a patch; 299x299"):
        cut(noise(298, 400))
