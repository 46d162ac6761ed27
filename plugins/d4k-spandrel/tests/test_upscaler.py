"""Networks of true architectures enlarge as spandrel itself does, and tiles are not seen."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from spandrel import ModelLoader
from torch import Tensor

from d4k import ConfigError
from d4k.images import Lanczos
from d4k.plugins import build, discover
from d4k.testing import check_upscaler
from d4k_spandrel.network import load_network
from d4k_spandrel.upscaler import MOST_OVERLAP, Spandrel

ALL = ["esrgan", "swinir", "deep_swinir", "dat"]


def whole(file: Path, picture: Tensor) -> Tensor:
    """What spandrel makes of the whole picture, in [-1, 1]."""
    return ModelLoader().load_from_file(file)((picture + 1) / 2).clone() * 2 - 1


@pytest.fixture(params=ALL)
def network(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def tiled(file: Path, picture: Tensor, **options: int) -> Tensor:
    upscaler = Spandrel(file=str(file), tile=32, **options)
    scale = upscaler.settings["scale"]
    return upscaler(picture, picture.shape[2] * scale, picture.shape[3] * scale)


def jump(difference: Tensor, column: int, scale: int) -> float:
    """How much a picture changes from pixel `column - 1` of the source to the next, against the pixels around."""
    steps = (difference[..., scale::scale] - difference[..., scale - 1 : -1 : scale]).abs().mean((0, 1, 2))
    around = torch.cat([steps[column - 5 : column - 1], steps[column : column + 4]])
    return float(steps[column - 1] / around.mean())


def test_the_plugin_registers_the_network_of_a_file(esrgan: Path) -> None:
    """Through the door that d4k finds plugins by."""
    found = discover([EntryPoint("spandrel", "d4k_spandrel", "d4k")])
    assert found.failures == {}
    assert build(found.get("upscaler", "spandrel"), {"file": str(esrgan)}) == Spandrel(file=str(esrgan))


@pytest.mark.parametrize("name", ["esrgan", "swinir", "deep_swinir"])
def test_contract_holds_for_networks_that_about_copy(name: str, request: pytest.FixtureRequest) -> None:
    """The weights are made so; a network of wild weights keeps no flat picture flat."""
    check_upscaler(Spandrel(file=str(request.getfixturevalue(name)), tile=16))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # of spandrel itself
def test_a_picture_of_one_tile_is_what_spandrel_makes_of_it(network: Path, picture: Tensor) -> None:
    """Bit by bit, whatever the architecture."""
    scale = load_network(str(network)).scale
    found = Spandrel(file=str(network), tile=96)(picture, 70 * scale, 96 * scale)
    assert torch.equal(found, whole(network, picture))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", ["esrgan", "swinir"])
def test_tiles_make_no_difference_where_the_overlap_is_what_the_network_sees(
    name: str, request: pytest.FixtureRequest, picture: Tensor
) -> None:
    """Convolutions, and windows of attention, which lie in the tile as in the picture. Without overlap it shows."""
    file = request.getfixturevalue(name)
    assert Spandrel(file=str(file), tile=32).exact
    assert not Spandrel(file=str(file), tile=32, overlap=0).exact
    wanted = whole(file, picture)
    assert (tiled(file, picture) - wanted).abs().max() < 1e-5
    assert (tiled(file, picture, overlap=0) - wanted).abs().max() > 0.01


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_tiles_of_a_network_that_looks_farther_show_no_seam(deep_swinir: Path, picture: Tensor) -> None:
    """With 8 pixels of overlap the result differs by two grey levels at most, and no more at borders than elsewhere."""
    assert not Spandrel(file=str(deep_swinir), tile=32).exact
    wanted = whole(deep_swinir, picture)
    cut, blended = (tiled(deep_swinir, picture, overlap=overlap) - wanted for overlap in (0, 8))
    assert (tiled(deep_swinir, picture) - wanted).abs().max() < 1e-4  # of all 32 pixels
    assert blended.abs().max() * 127.5 < 2
    for border in (32, 64):
        assert jump(cut, border, 2) > 2.5
        assert jump(blended, border, 2) < 1.5
        assert jump(wanted + blended, border, 2) == pytest.approx(jump(wanted, border, 2), rel=0.01)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_tiles_of_a_network_that_takes_means_over_the_picture_show_no_seam(dat: Path, picture: Tensor) -> None:
    """They differ, since a tile has another mean than the picture, but they do not jump."""
    assert load_network(str(dat)).reach is None
    wanted = whole(dat, picture)
    difference = tiled(dat, picture) - wanted
    assert 1e-3 < difference.abs().max() < 0.1
    assert max(jump(difference, border, 2) for border in (32, 64)) < 1.5
    assert max(jump(tiled(dat, picture, overlap=0) - wanted, border, 2) for border in (32, 64)) > 1.8


def test_reach_is_how_far_the_gradient_of_a_pixel_goes(esrgan: Path) -> None:
    """Three times five convolutions, one before and one after them, and those at two and four times the size."""
    model = ModelLoader().load_from_file(esrgan).model.double().requires_grad_(False)
    picture = torch.rand(1, 3, 61, 61, dtype=torch.float64, requires_grad=True)
    model(picture)[..., 120:124, 120:124].sum().backward()
    assert picture.grad is not None
    rows = picture.grad.abs().sum((0, 1, 3)).nonzero()[:, 0]
    assert load_network(str(esrgan)).reach == max(30 - int(rows.min()), int(rows.max()) - 30) == 19


def test_overlap_follows_from_the_reach_up_to_the_most(esrgan: Path, deep_swinir: Path) -> None:
    """The difference that tiles make is what the options say, and no matter of chance."""
    assert Spandrel(file=str(esrgan), overlap=24).exact is False
    assert Spandrel(file=str(esrgan), overlap=25).exact is True
    assert Spandrel(file=str(deep_swinir), overlap=MOST_OVERLAP).exact is False
    assert Spandrel(file=str(deep_swinir), overlap=48).exact is True


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_other_sizes_are_made_by_the_network_and_reduced_by_lanczos(swinir: Path, picture: Tensor) -> None:
    """Less than its scale, other proportions, more than its scale, and no more than there is already."""
    upscaler, small = Spandrel(file=str(swinir), tile=512), picture[..., :24, :32]
    twice = whole(swinir, small)
    assert torch.equal(upscaler(small, 30, 40), Lanczos()(twice, 30, 40))
    assert torch.equal(upscaler(small, 24, 50), Lanczos()(twice, 24, 50))
    again = whole(swinir, twice)
    assert torch.equal(upscaler(small, 72, 90), Lanczos()(again, 72, 90))
    assert torch.equal(upscaler(small, 12, 32), Lanczos()(small.clamp(-1, 1), 12, 32))
    assert torch.allclose(upscaler(small, 24, 32), small, atol=1e-6)


def test_settings_say_which_network_it_was(esrgan: Path) -> None:
    """Plain values, which a recipe keeps."""
    assert json.loads(json.dumps(Spandrel(file=str(esrgan)).settings)) == {
        "file": "4x-tiny.safetensors",
        "sha256": sha256(esrgan.read_bytes()).hexdigest(),
        "architecture": "ESRGAN",
        "scale": 4,
    }


def test_a_pickled_file_as_published_is_the_same_network(esrgan: Path, picture: Tensor, tmp_path: Path) -> None:
    """A state dict that lies under another name, of a process of several."""
    tensors = {f"module.{name}": tensor for name, tensor in load_file(esrgan).items()}
    torch.save({"params_ema": tensors, "iter": 5}, tmp_path / "net.pth")
    small = picture[..., :16, :16]
    found, wanted = (Spandrel(file=str(file))(small, 64, 64) for file in (tmp_path / "net.pth", esrgan))
    assert torch.equal(found, wanted)


def test_loading_draws_no_random_number_of_others(esrgan: Path) -> None:
    """Architectures are made with random weights before those of the file replace them."""
    state = torch.get_rng_state()
    load_network(str(esrgan))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile": 15}, "tile"),
        ({"tile": True}, "tile"),
        ({"overlap": -1}, "overlap"),
        ({"tile": 64, "overlap": 65}, "overlap must be at most tile, which is 64, got 65"),
        ({"file": ""}, "file must be the path of a file of weights, got ''"),
        ({"file": 4}, "file must be the path of a file of weights, got 4"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], words: str) -> None:
    """Before the file is looked at."""
    with pytest.raises(ConfigError, match=words):
        Spandrel(**{"file": "net.pth", **options})


def test_a_size_that_is_none_is_refused(esrgan: Path, picture: Tensor) -> None:
    """As by the filters."""
    with pytest.raises(ConfigError, match="cannot become 0x5 pixels"):
        Spandrel(file=str(esrgan))(picture, 5, 0)
