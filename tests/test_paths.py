"""Paths that cannot be: whatever is asked of them ends in one of d4k's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d4k import CheckpointError, D4KError, DataError
from d4k.adapters import Adapter, find_adapter, write_adapter
from d4k.datasets import FolderDataset
from d4k.files import atomic_folder, empty_folder, is_file, is_folder, read_bytes, refuse_used, write_json
from d4k.images import list_pictures, open_picture, picture_size, read_recipe, save_picture
from d4k.models import ModelRef, find_model, missing_from_cache
from d4k.models.hub import fetch_denoiser

PICTURE = Image.new("RGB", (2, 2))


def save_adapter(path: Path) -> None:
    tensors = {"x.lora_A.weight": torch.ones(1, 2), "x.lora_B.weight": torch.ones(2, 1)}
    write_adapter(Adapter("", tensors, {"r": 1, "lora_alpha": 1}), path.with_name(f"{path.name}.safetensors"))


READING: list[Callable[[Path], Any]] = [
    open_picture, picture_size, list_pictures, read_recipe, find_adapter, lambda path: len(FolderDataset(path)),
    lambda path: find_model(ModelRef(str(path))), lambda path: fetch_denoiser(str(path)),
    lambda path: read_bytes(path, DataError),
]  # fmt: skip
WRITING: list[Callable[[Path], Any]] = [
    lambda path: save_picture(PICTURE, path.with_name(f"{path.name}.png")), save_adapter,
    lambda path: write_json(path, {}), empty_folder, lambda path: atomic_folder(path).__enter__(),
]  # fmt: skip


@pytest.fixture(params=["nul", "too long", "below a file", "a loop of links"])
def impossible(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A path that no file can have."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        "nul": tmp_path / "a\0b",
        "too long": tmp_path / ("x" * 300),
        "below a file": tmp_path / "file" / "x",
        "a loop of links": tmp_path / "loop" / "x",
    }[str(request.param)]


@pytest.mark.parametrize("read", READING)
def test_nothing_is_read_from_an_impossible_path(impossible: Path, read: Callable[[Path], Any]) -> None:
    """Pictures, datasets, adapters, models and plain bytes."""
    with pytest.raises(D4KError):
        read(impossible)


@pytest.mark.parametrize("write", WRITING)
def test_nothing_is_written_to_an_impossible_path(impossible: Path, write: Callable[[Path], Any]) -> None:
    """Pictures, adapters, records and folders."""
    with pytest.raises(D4KError):
        write(impossible)


def test_an_impossible_path_is_no_file_and_no_folder(impossible: Path) -> None:
    """Asking is no error, and what is not there is not fetched under that name."""
    assert not is_file(impossible, DataError)
    assert not is_folder(impossible, DataError)
    assert missing_from_cache(ModelRef(str(impossible))) == []


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """`deny(path)`: from now on the path may not be opened, listed or looked at."""

    def do(path: Path) -> None:
        for owner, name in ((Path, "stat"), (Path, "open"), (os, "scandir")):
            original = getattr(owner, name)

            def refuse(first: Any, *rest: Any, original: Any = original, **named: Any) -> Any:
                if Path(os.fspath(first)) == path:
                    raise PermissionError(errno.EACCES, "Permission denied", str(path))
                return original(first, *rest, **named)

            monkeypatch.setattr(owner, name, refuse)

    return do


@pytest.mark.parametrize("name", [".", "a.png", "a.txt"])
def test_a_folder_that_may_not_be_read_is_a_data_error(tmp_path: Path, deny: Callable[..., None], name: str) -> None:
    """The folder, a picture in it, or its caption."""
    PICTURE.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a cat")
    deny(tmp_path / name)
    with pytest.raises(DataError, match=f"cannot .*{name.removeprefix('.')}.*Permission denied"):
        open_picture(FolderDataset(tmp_path)[0].source)


def test_a_folder_below_that_may_not_be_listed_is_not_left_out_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures would be missing from the dataset."""
    (tmp_path / "inner").mkdir()
    PICTURE.save(tmp_path / "a.png")
    original = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "inner":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot list .*inner: Permission denied"):
        list_pictures(tmp_path, recursive=True)
    assert list_pictures(tmp_path) == [tmp_path / "a.png"]


@pytest.mark.parametrize("name", ["", "model_index.json", "d4k.json"])
def test_a_model_that_may_not_be_read_is_a_checkpoint_error(
    tmp_path: Path, deny: Callable[..., None], name: str
) -> None:
    """The folder, or a file in it."""
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "d4k.json").write_text("{}")
    deny(tmp_path / name)
    with pytest.raises(CheckpointError, match="Permission denied"):
        find_model(ModelRef(str(tmp_path)))


def test_an_output_that_may_not_be_looked_at_is_an_output_error(tmp_path: Path, deny: Callable[..., None]) -> None:
    """Before anything is computed."""
    deny(tmp_path / "out")
    with pytest.raises(D4KError, match="cannot write .*out: Permission denied"):
        refuse_used(tmp_path / "out")
