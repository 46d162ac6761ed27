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
