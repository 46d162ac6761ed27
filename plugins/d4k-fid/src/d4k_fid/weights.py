"""Files of weights: where they are, what they must be, and what to do where there is no network."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from huggingface_hub import constants
from torch import Tensor

from d4k import CheckpointError

__all__ = ["WEIGHTS", "Weights", "find_weights", "read_weights", "sha256_of"]


@frozen
class Weights:
    """A published file of weights.

    Args:
        url: where it is downloaded from.
        sha256: of the file, in hexadecimal.
    """

    url: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the cache of torch hub."""
        return self.url.rpartition("/")[2]


_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/dinov2_{0}/dinov2_{0}_pretrain.pth"

WEIGHTS: Mapping[str, Weights] = {
    "inception-v3-compat": Weights(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "dinov2-vit-s-14": Weights(
        _DINOV2.format("vits14"), "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"
    ),
    "dinov2-vit-b-14": Weights(
        _DINOV2.format("vitb14"), "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"
    ),
    "dinov2-vit-l-14": Weights(
        _DINOV2.format("vitl14"), "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"
    ),
}
"""By the name that torch-fidelity gives the network."""


def find_weights(network: str, path: str | None = None, sha256: str | None = None) -> Path:
    """The file of a network's weights, downloaded where it is neither given nor there.

    A file at torch hub's place must be the published one. Another file may hold other weights; where no SHA-256 is
    given and its name ends in the digits of one, as torch hub names files, these must be right.

    Args:
        network: a key of `WEIGHTS`.
        path: of another file.
        sha256: that this other file must have.

    Raises:
        CheckpointError: it cannot be had, or is another than its name says.
    """
    weights = WEIGHTS[network]
    if path is None:
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.file
        if not file.is_file():
            _download(network, weights, file)
        expected = weights.sha256
    else:
        file = Path(path).expanduser()
        if not file.is_file():
            raise CheckpointError(f"there is no file {file} of weights; {network} has those of {weights.url}")
        named = re.search(r"-([0-9a-f]{8,64})\.", file.name)
        expected = sha256 or (named[1] if named else "")
    found = sha256_of(file)
    if not found.startswith(expected):
        raise CheckpointError(
            f"{file} should have the SHA-256 {expected} and has {found}: it is damaged, or another file under this "
            f"name. Remove it, and download {weights.url}"
        )
    return file


def _download(network: str, weights: Weights, file: Path) -> None:
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"the weights of {network} are not here, and HF_HUB_OFFLINE is set: put {weights.url} at {file}, or name "
            "the file with the option weights"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(file), hash_prefix=weights.sha256, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no network, no room; or another SHA-256
        raise CheckpointError(
            f"cannot download the weights of {network} ({error}). Offline? Put {weights.url} at {file}, or name the "
            "file with the option weights"
        ) from error


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal; computed again when the file has changed."""
    status = file.stat()
    return _sha256(str(file.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, changed: int) -> str:  # noqa: ARG001
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. What is pickled in it beside tensors is refused, and nothing of it is run.

    Raises:
        CheckpointError: it holds something else, or is damaged.
    """
    try:
        tensors: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the formats of torch fail in many ways
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise CheckpointError(f"cannot read {file} as weights: {reason}. Download it again") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{file} holds no tensors by name; it must be a state dict as torch saves it")
    return tensors
