"""Files that are no upscaler are refused in a sentence, and nothing that they hold is run."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.MoSR import MoSR
from torch import nn

from d4k import CheckpointError
from d4k_spandrel.upscaler import Spandrel


def refusal(file: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        _ = Spandrel(file=str(file)).settings
    return str(caught.value)


def test_a_missing_file_is_named_with_what_to_put_there(tmp_path: Path) -> None:
    """Nothing is downloaded."""
    told = refusal(tmp_path / "net.pth")
    assert told.startswith(f"there is no file {tmp_path / 'net.pth'}, which the option file of the upscaler spandrel")
    assert "put the weights of a super-resolution network there, as .safetensors or .pth" in told


class Leaves:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_runs_something_is_refused_unrun(tmp_path: Path) -> None:
    """Whatever the file is called."""
    for name in ("net.pth", "net.pt", "net.ckpt"):
        torch.save({"params": Leaves(tmp_path / "made")}, tmp_path / name)
        assert "cannot be read as a file of tensors alone (weights_only=True)" in refusal(tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    """It is a program."""
    torch.jit.trace(nn.Conv2d(3, 3, 3), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "net.pt"))
    assert "is a TorchScript archive, which holds code, and is not loaded" in refusal(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    """Cut off, or something else altogether."""
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    assert str(tmp_path / name) in refusal(tmp_path / name)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    """Tensors of something else, and no tensors by name."""
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "is none of the networks that spandrel reads" in refusal(tmp_path / "other.safetensors")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    assert "holds a list and no tensors by name" in refusal(tmp_path / "list.pth")


def test_a_network_that_lacks_a_tensor_is_refused(esrgan: Path, tmp_path: Path) -> None:
    """Its architecture is recognised, but not made whole by chance."""
    tensors = load_file(esrgan)
    del tensors["model.1.sub.0.RDB2.conv1.0.weight"]
    save_file(tensors, tmp_path / "part.safetensors")
    assert "looks like a network, but does not load" in refusal(tmp_path / "part.safetensors")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_in_ch": 1, "num_out_ch": 1}, "takes pictures of 1 and gives such of 1 channels"),
        ({"upscale": 1}, "restores pictures at their own size"),
    ],
)
def test_networks_that_do_not_enlarge_rgb_pictures_are_refused(
    options: dict[str, int], words: str, tmp_path: Path
) -> None:
    """With the architecture, and what is needed."""
    model = Compact(**{"num_feat": 4, "num_conv": 2, "upscale": 2, **options})
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, tmp_path / "net.safetensors")
    told = refusal(tmp_path / "net.safetensors")
    assert f"is a network of the architecture RealESRGAN Compact, which {words}" in told
    assert "An upscaler needs one that enlarges RGB pictures" in told


def test_a_network_of_scale_1_is_refused_whatever_its_purpose_is_called(tmp_path: Path) -> None:
    """Of every MoSR it is said that it enlarges; one that does not would be applied for ever."""
    model = MoSR(upscale=1, n_block=1, dim=8)
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, tmp_path / "net.safetensors")
    assert "is a network of the architecture MoSR, which restores pictures at their own size" in refusal(
        tmp_path / "net.safetensors"
    )


@pytest.mark.parametrize(
    ("purpose", "words"), [("FaceSR", "restores faces of one size"), ("Inpainting", "fills holes of pictures")]
)
def test_networks_of_other_purposes_are_refused(
    purpose: str, words: str, esrgan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As spandrel names their purpose; these networks are too large for a test."""
    architecture = SimpleNamespace(name="GFPGAN")
    found = SimpleNamespace(architecture=architecture, purpose=purpose, input_channels=3, output_channels=3)
    monkeypatch.setattr(ModelLoader, "load_from_state_dict", lambda self, tensors: found)
    assert f"is a network of the architecture GFPGAN, which {words}" in refusal(esrgan)
