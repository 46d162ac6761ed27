"""The core's own loss and dataset keep their contracts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from d4k import create
from d4k.datasets import FolderDataset
from d4k.errors import ConfigError, DataError
from d4k.protocols import FlowStep
from d4k.testing import check_dataset, check_loss
from d4k.training import MSELoss


@pytest.fixture
def folder(tmp_path):
    """Pictures a (captioned), b (not) and below/c (captioned)."""
    (tmp_path / "below").mkdir()
    for name in ("b.png", "a.png", "below/c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("a café\n", encoding="utf-8")
    (tmp_path / "below" / "c.txt").write_text("\ufeffa barn", encoding="utf-8")
    return tmp_path


def test_mse_keeps_the_contract_of_a_loss():
    """Through the registry, as users make it."""
    check_loss(create("loss", "mse"))


def test_mse_is_the_mean_square_of_each_sample():
    """Against numpy in double precision."""
    clean, noise, velocity = (torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(n)) for n in range(3))
    difference = velocity.double().numpy() - (noise.double().numpy() - clean.double().numpy())
    got = MSELoss()(velocity, FlowStep(clean, noise, torch.rand(3)))
    np.testing.assert_allclose(got.numpy(), (difference**2).mean(axis=(1, 2, 3)), rtol=1e-5)


def test_mse_of_half_precision_is_accumulated_in_float32():
    """A square beyond the range of float16 stays finite."""
    zero = torch.zeros(1, 4, 8, 8, dtype=torch.float16)
    got = MSELoss()(zero + 1000, FlowStep(zero, zero, torch.ones(1)))
    assert got.dtype == torch.float32
    assert got.tolist() == [1e6]


def test_a_folder_keeps_the_contract_of_a_dataset(folder):
    """Through the registry, as users make it."""
    check_dataset(create("dataset", "folder", path=folder / "below"))


def test_captions_lie_beside_the_pictures(folder):
    """Ids are paths below the folder; captions lose white space and byte-order marks."""
    dataset = FolderDataset(str(folder), recursive=True, missing_caption="empty")
    found = [(sample.id, sample.caption, sample.source) for sample in dataset]
    assert found == [
        ("a.png", "a café", folder / "a.png"),
        ("b.png", "", folder / "b.png"),
        ("below/c.png", "a barn", folder / "below" / "c.png"),
    ]
    assert dataset.skipped == []
    assert len(FolderDataset(folder, missing_caption="empty")) == 2


def test_a_missing_caption_is_an_error(folder):
    """It names the picture and the way out."""
    with pytest.raises(DataError, match=r"b\.png has no caption b\.txt beside it; .*missing_caption") as caught:
        len(FolderDataset(folder))
    assert caught.value.path == folder / "b.png"


def test_pictures_without_captions_are_skipped_on_request_and_counted(folder):
    """One warning with the count; `skipped` has the names and reasons."""
    dataset = FolderDataset(folder, missing_caption="skip")
    with pytest.warns(UserWarning, match=r"^1 of 2 pictures .* were skipped; the first is b\.png") as caught:
        assert len(dataset) == 1
    assert dataset[0].id == "a.png"
    assert dataset.skipped == ["b.png: it has no caption b.txt beside it"]
    assert len(caught) == 1


def test_a_folder_of_uncaptioned_pictures_is_an_error(folder):
    """Skipping all of them leaves no dataset."""
    (folder / "a.txt").unlink()
    with pytest.raises(DataError, match="none of the 2 pictures"):
        len(FolderDataset(folder, missing_caption="skip"))


def test_a_caption_that_is_not_utf8_is_an_error(folder):
    """It names the file and the line."""
    (folder / "a.txt").write_bytes(b"first\nsecond caf\xe9\nthird")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 text in line 2") as caught:
        len(FolderDataset(folder))
    assert (caught.value.path, caught.value.line) == (folder / "a.txt", 2)


def test_nothing_is_read_before_the_first_use(tmp_path):
    """A missing folder is noticed when the pictures are counted."""
    dataset = FolderDataset(tmp_path / "gone")
    with pytest.raises(DataError, match="gone is not a folder"):
        len(dataset)


def test_an_unknown_choice_is_refused(folder):
    """The message lists what is allowed."""
    with pytest.raises(ConfigError, match="missing_caption is 'ignore'; allowed: error, empty, skip"):
        create("dataset", "folder", path=folder, missing_caption="ignore")
