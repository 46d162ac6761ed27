"""The file of a network: its tensors, read without running what it holds, and its digest."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from d4k import CheckpointError

__all__ = ["find_file", "read_tensors", "sha256_of"]


def find_file(given: str) -> Path:
    """The file that an option names.

    Raises:
        CheckpointError: there is none; the message says what to put there.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {path}, which the option file of the upscaler spandrel names. Nothing is downloaded: "
            "put the weights of a super-resolution network there, as .safetensors or .pth, such as "
            "RealESRGAN_x4plus.pth of the authors of Real-ESRGAN"
        )
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def read_tensors(path: Path) -> dict[str, Any]:
    """What a file of weights holds, on the CPU; spandrel finds the state dict in it, which may be nested.

    Args:
        path: safetensors, or what `torch.load` reads with `weights_only=True`, which imports nothing.

    Raises:
        CheckpointError: it is damaged, or holds code.
    """
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)  # type: ignore[no-any-return]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged, or no safetensors: {error}. Download it again") from error
    instead = "save its state dict as safetensors, and use that instead"
    if _is_torchscript(path):
        raise CheckpointError(f"{path} is a TorchScript archive, which holds code, and is not loaded: {instead}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors alone (weights_only=True), and is not loaded: {instead}"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__} and no tensors by name: it is no network")
    return dict(content)


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
