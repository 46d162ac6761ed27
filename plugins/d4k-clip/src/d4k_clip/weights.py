"""Files of weights: from the Hub by pinned revision and SHA-256, or a local path; read without running what they hold.

weights = FILE or FOLDER, or nothing  ─ find_weights ─►  path  ─ file_digest ─►  SHA-256  ─ read_weights ─►  tensors
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from d4k import CheckpointError

__all__ = ["AESTHETICS", "HPS_V21", "PICKSCORE", "VIT_B16", "VIT_L14", "Published", "file_digest", "find_weights"]
__all__ += ["read_weights"]


@frozen
class Published:
    """A file of weights as its authors published it.

    Args:
        repo: Hub id.
        revision: commit.
        name: of the file.
        sha256: of the file, in hexadecimal; empty where it is not known from public material. The commit pins the file
            then, and the digest that was found is shown in the score.
    """

    repo: str
    revision: str
    name: str
    sha256: str = ""


VIT_B16 = Published(
    "timm/vit_base_patch16_clip_224.openai",
    "977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d",
    "open_clip_model.safetensors",
    "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
)
"""CLIP ViT-B/16 of OpenAI, as open_clip lays it out."""

VIT_L14 = Published(
    "timm/vit_large_patch14_clip_224.openai",
    "18d0535469bb561bf468d76c1d73aa35156c922b",
    "open_clip_model.safetensors",
    "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
)
"""CLIP ViT-L/14 of OpenAI, as open_clip lays it out."""

PICKSCORE = Published("yuvalkirstain/PickScore_v1", "a4e4367c6dfa7288a00c550414478f865b875800", "model.safetensors")
"""PickScore v1, a CLIP ViT-H/14 as transformers lays it out. Its digest is nowhere published."""

HPS_V21 = Published(
    "xswu/HPSv2",
    "697403c78157020a1ae59d23f111aa58ced35b0a",
    "HPS_v2.1_compressed.pt",
    "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
)
"""HPSv2.1, a CLIP ViT-H/14 as open_clip lays it out."""

AESTHETICS = Published(
    "haor/aesthetics",
    "60617cce14f355d3923a0e320c9b616fc32ad36d",
    "sac+logos+ava1-l14-linearMSE.pth",
    "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
)
"""The LAION aesthetics head of five linear layers, in a copy on the Hub."""

_digests: dict[tuple[str, int, int], str] = {}


def find_weights(option: str, given: str | None, published: Published | None, sha256: str | None = None) -> Path:
    """The file of weights that an option names, or the published one, and whether it is the right one.

    Args:
        option: name of the option, for messages.
        given: a file, or a folder that holds a file of the published name; None is the published file.
        published: where the weights come from when nothing is given.
        sha256: that the file must have; of the published file, its own.

    Raises:
        CheckpointError: there is no such file, it cannot be had, or it has another digest.
    """
    if given is not None:
        path = _local(option, given, published)
    elif published is not None:
        path = _download(option, published)
        sha256 = sha256 or published.sha256 or _name_in_cache(path)
    else:
        raise CheckpointError(f"there are no published weights of this model: give a file of weights as {option}")
    found = file_digest(path)
    if sha256 and found != sha256.lower():
        other = option.removesuffix("weights") if option.endswith("weights") else f"{option}_"
        raise CheckpointError(
            f"{path} is not the file of weights that is meant: its SHA-256 is {found}, expected {sha256.lower()}. "
            f"Download it again; the digest of a file of your own is given as {other}sha256"
        )
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; computed once for a file that does not change.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        state = path.stat()
        key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
        if key not in _digests:
            with path.open("rb") as file:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    return _digests[key]


def read_weights(path: Path, published: Published | None = None) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU. Nothing that the file holds is run.

    Args:
        path: safetensors, or a state dict that `torch.load` reads with `weights_only=True`, alone or as "state_dict".
        published: what is recommended instead of a file that cannot be read.

    Raises:
        CheckpointError: it is damaged, a TorchScript archive, or holds more than tensors.
    """
    instead = (
        f"use {published.name} of '{published.repo}' on the Hub instead"
        if published is not None and published.name.endswith(".safetensors")
        else "save its state dict as safetensors, and use that instead"
    )
    if path.suffix == ".safetensors":
        try:
            return load_file(path)  # type: ignore[no-any-return]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged, or no safetensors: {error}. Download it again") from error
    if _is_torchscript(path):
        raise CheckpointError(f"{path} is a TorchScript archive, which holds code, and is not loaded: {instead}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a file of tensors alone (weights_only=True), and is not loaded: {instead}"
        ) from error
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no state dict: expected tensors by name, alone or under 'state_dict'")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _local(option: str, given: str, published: Published | None) -> Path:
    path = Path(given).expanduser()
    if path.is_dir() and published is not None:
        path /= published.name
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}, which {option} names: give a file of weights")
    return path


def _name_in_cache(path: Path) -> str:
    """The SHA-256 by which the Hub's cache keeps a large file; empty where it keeps copies under their own names."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else ""


def _download(option: str, published: Published) -> Path:
    """The published file in the cache of the Hub, downloaded where it is missing."""
    try:
        return Path(hf_hub_download(published.repo, published.name, revision=published.revision))
    except Exception as error:  # the client raises what its HTTP library raises
        lines = str(error).strip().splitlines()
        offline = isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError)  # offline, what is not in the cache
        why = "it is not in the cache" if offline else lines[0].rstrip(".") if lines else type(error).__name__
        raise CheckpointError(
            f"cannot get {published.name} of '{published.repo}' from the Hub ({why}). Where there is a network: "
            f"hf download {published.repo} {published.name} --revision {published.revision}; "
            f"then give the path of the file as {option}"
        ) from error
