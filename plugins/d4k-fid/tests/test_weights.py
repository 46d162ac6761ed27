from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from d4k import CheckpointError
from d4k_fid import weights
from d4k_fid.weights import WEIGHTS, Weights, find_weights, read_weights, sha256_of

INCEPTION = "inception-v3-compat"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder in which torch hub keeps weights; nothing may be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small file in the place of the published one, and what is known of it."""
    file = tmp_path / "far" / "small-weights.pth"
    file.parent.mkdir()
    torch.save({"a": torch.ones(3)}, file)
    known = Weights(file.as_uri(), hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(weights, "WEIGHTS", {**WEIGHTS, INCEPTION: known})
    return file


@pytest.mark.parametrize("network", WEIGHTS)
def test_offline_one_line_says_which_file_to_put_where(hub, network):
    """Where it comes from, where it belongs, and the way around."""
    known = WEIGHTS[network]
    with pytest.raises(CheckpointError) as caught:
        find_weights(network)
    said = str(caught.value)
    assert f"put {known.url} at {hub / known.file}" in said
    assert "option weights" in said
    assert "\n" not in said


def test_the_name_of_the_inception_file_carries_the_digits_of_its_digest():
    """As torch hub names files; torch-fidelity's own constructor takes it from the same place."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    known = WEIGHTS[INCEPTION]
    assert known.url == URL_INCEPTION_V3
    assert known.file.endswith(f"-{known.sha256[:8]}.pth")


def test_missing_weights_are_downloaded_to_the_place_of_torch_hub(hub, published, monkeypatch):
    """And found there the next time, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    file = find_weights(INCEPTION)
    assert file == hub / "small-weights.pth"
    assert file.read_bytes() == published.read_bytes()
    published.unlink()
    assert find_weights(INCEPTION) == file


def test_a_download_that_fails_says_which_file_to_put_where(hub, published, monkeypatch):
    """With the reason."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    published.unlink()
    with pytest.raises(CheckpointError, match=r"cannot download.*No such file.*[Pp]ut file://.* at .*small-weights"):
        find_weights(INCEPTION)
    assert list(hub.iterdir()) == []


def test_a_download_of_other_bytes_is_refused(hub, published, monkeypatch):
    """Nothing of it stays."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    published.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="invalid hash value"):
        find_weights(INCEPTION)
    assert list(hub.iterdir()) == []


def test_a_damaged_file_at_the_place_of_torch_hub_is_refused(hub):
    """Both digests are named."""
    file = hub / WEIGHTS[INCEPTION].file
    file.write_bytes(b"cut short")
    found = hashlib.sha256(b"cut short").hexdigest()
    with pytest.raises(CheckpointError, match=f"{WEIGHTS[INCEPTION].sha256} and has {found}"):
        find_weights(INCEPTION)


def test_a_file_of_ones_own_must_have_the_digits_in_its_name(tmp_path):
    """Where there are any; a name without them says nothing."""
    digest = hashlib.sha256(b"weights").hexdigest()
    right, wrong, plain = (tmp_path / name for name in (f"w-{digest[:8]}.pth", "w-00000000.pth", "w.pth"))
    for file in (right, wrong, plain):
        file.write_bytes(b"weights")
    assert find_weights(INCEPTION, str(right)) == right
    assert find_weights(INCEPTION, str(plain)) == plain
    with pytest.raises(CheckpointError, match="should have the SHA-256 00000000 and has"):
        find_weights(INCEPTION, str(wrong))


def test_a_digest_that_is_given_must_be_that_of_the_file(tmp_path):
    """Whatever its name is."""
    file = tmp_path / "w.pth"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert find_weights(INCEPTION, str(file), digest) == file
    with pytest.raises(CheckpointError, match="should have the SHA-256"):
        find_weights(INCEPTION, str(file), "0" * 64)


def test_a_file_that_is_not_there_is_named(tmp_path):
    """The given path."""
    with pytest.raises(CheckpointError, match=r"there is no file .*none\.pth"):
        find_weights(INCEPTION, str(tmp_path / "none.pth"))


def test_a_changed_file_has_another_digest(tmp_path):
    """Though the first one is remembered."""
    file = tmp_path / "w.pth"
    file.write_bytes(b"one")
    first = sha256_of(file)
    file.write_bytes(b"other")
    assert first != sha256_of(file) == hashlib.sha256(b"other").hexdigest()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_code_in_a_file_is_not_run(tmp_path, save):
    """The file is refused."""
    file, made = tmp_path / "w.pth", tmp_path / "made"
    save({"a": Touch(made)}, file)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_weights(file)
    assert not made.exists()


@pytest.mark.parametrize("value", [[torch.ones(1)], {"model": {"a": torch.ones(1)}}])
def test_a_file_of_something_else_is_refused(tmp_path, value):
    """A list of tensors, or a whole training state."""
    file = tmp_path / "w.pth"
    torch.save(value, file)
    with pytest.raises(CheckpointError, match="no tensors by name"):
        read_weights(file)
