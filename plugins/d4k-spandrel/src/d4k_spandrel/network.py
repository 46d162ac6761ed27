"""A super-resolution network as spandrel reads it: whether it suits, and how far it looks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
from torch import Tensor

from d4k import CheckpointError
from d4k_spandrel.tiles import ALIGNED
from d4k_spandrel.weights import find_file, read_tensors, sha256_of

__all__ = ["INSIDE", "Network", "load_network"]

INSIDE = 2 * ALIGNED
"""Pixels a side of the square that is free of NaN when it is measured how far a network looks."""

DRAWING = ("AuraSR",)
"""Architectures that draw random numbers while they enlarge."""


class Network:
    """A network that enlarges RGB pictures by a fixed whole scale. Get one from `load_network`.

    Args:
        descriptor: of spandrel.
        file: that it was read from.
        sha256: of the file.
    """

    def __init__(self, descriptor: ImageModelDescriptor[Any], file: Path, sha256: str) -> None:
        self._descriptor, self.file, self.sha256 = descriptor, file, sha256
        self._reach: int | None = None
        self._measured = False

    @property
    def scale(self) -> int:
        """How much larger each side becomes."""
        return int(self._descriptor.scale)

    @property
    def architecture(self) -> str:
        """By the name that spandrel gives it, such as "ESRGAN"."""
        return str(self._descriptor.architecture.name)

    def to(self, device: torch.device) -> Network:
        """This network, moved to a device."""
        self._descriptor.to(device)
        return self

    def __call__(self, picture: Tensor) -> Tensor:
        """A picture (1, 3, H, W) in [0, 1], float32 and on the device of the network, enlarged; in [0, 1], too."""
        with _quiet():
            return self._descriptor(picture)  # type: ignore[no-any-return]

    @property
    def reach(self) -> int | None:
        """How many pixels away a pixel of the source can still change one of the result; None where it is far.

        It is measured: NaN is put around a square, and spreads as far as anything does, whatever the weights are. The
        square begins and ends at multiples of `ALIGNED`, as tiles do, since networks with windows look as far as a
        window goes. Of a network that takes means over the whole picture nothing stays free of NaN.
        """
        if not self._measured:
            self._reach, self._measured = self._measure(), True
        return self._reach

    def _measure(self) -> int | None:
        picture = torch.full((1, 3, *[ALIGNED + INSIDE + ALIGNED // 4] * 2), math.nan, device=self._descriptor.device)
        inside = slice(ALIGNED, ALIGNED + INSIDE)
        picture[..., inside, inside] = 0.5
        side = INSIDE * self.scale
        start = ALIGNED * self.scale
        square = self(picture)[0, :, start : start + side, start : start + side]
        touched = ~square.isfinite().all(0)
        steps = torch.arange(side, device=touched.device)
        depth = torch.minimum(steps + 1, side - steps)  # pixels of the result to the nearest edge of the square
        deepest = int((torch.minimum(depth[:, None], depth[None, :]) * touched).max())
        return None if 2 * deepest >= side else math.ceil(deepest / self.scale)


def load_network(given: str) -> Network:
    """The network that a file holds, on the CPU. Its architecture is recognised by the names of its tensors.

    Args:
        given: path of the file.

    Raises:
        CheckpointError: there is no such file, it cannot be read without running what it holds, it is no network that
            spandrel knows, or one that does not enlarge RGB pictures.
    """
    path = find_file(given)
    tensors = read_tensors(path)
    try:
        with torch.random.fork_rng(devices=[]), _quiet():  # weights are drawn before those of the file replace them
            descriptor = ModelLoader("cpu").load_from_state_dict(tensors)
    except UnsupportedModelError as error:
        raise CheckpointError(
            f"{path} is none of the networks that spandrel reads: update spandrel, or use another file"
        ) from error
    except Exception as error:  # architectures are built from what the tensors seem to say
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise CheckpointError(f"{path} looks like a network, but does not load: {reason}. Download it again") from error
    _check(descriptor, path)
    descriptor.eval()
    descriptor.model.requires_grad_(False)
    return Network(descriptor, path, sha256_of(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch says to the authors of architectures."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
        yield


def _check(descriptor: Any, path: Path) -> None:
    """Refuse what does not enlarge RGB pictures."""
    name = descriptor.architecture.name
    channels = {descriptor.input_channels, descriptor.output_channels}
    why = None
    if not isinstance(descriptor, ImageModelDescriptor) or descriptor.purpose != "SR" or descriptor.scale < 2:
        why = {
            "Inpainting": "fills holes of pictures",
            "FaceSR": "restores faces of one size",
        }.get(descriptor.purpose, "restores pictures at their own size")
    elif channels != {3}:
        why = f"takes pictures of {descriptor.input_channels} and gives such of {descriptor.output_channels} channels"
    elif name in DRAWING:
        why = "draws random numbers while it enlarges, so that no picture could be made again"
    if why is not None:
        raise CheckpointError(
            f"{path} is a network of the architecture {name}, which {why}. "
            "An upscaler needs one that enlarges RGB pictures, with a scale of at least 2"
        )
