"""What the tests of training share: pictures, and a model that begins anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d4k import Placement
from d4k.datasets import FolderDataset


@pytest.fixture
def dataset(photos: Path) -> FolderDataset:
    """Five captioned pictures."""
    return FolderDataset(photos)


@pytest.fixture
def fresh(backbone: Any) -> Callable[..., Any]:
    """`fresh()`: another backbone with the same weights as at the start, in a dtype."""

    def make(dtype: torch.dtype = torch.float32) -> Any:
        result = type(backbone)()
        result.load(Placement(torch.device("cpu"), dtype))
        return result

    return make


@pytest.fixture
def same_weights() -> Callable[[Any, Any], bool]:
    """`same_weights(one, other)`: whether the denoisers of two backbones are equal, bit by bit."""

    def compare(one: Any, other: Any) -> bool:
        first, second = (
            {name.replace(".base_layer", ""): tensor for name, tensor in backbone.trainable.state_dict().items()}
            for backbone in (one, other)
        )
        return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)

    return compare
