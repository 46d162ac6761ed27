"""The values that pass between the protocols, and the protocols as shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from d4k import (
    Backbone,
    Conditioning,
    Dataset,
    FlowStep,
    LatentSpec,
    Loss,
    Metric,
    Sample,
    SamplingDefaults,
    Score,
    Upscaler,
)
from d4k.datasets import FolderDataset
from d4k.images import Lanczos
from d4k.training import MSELoss

VALUES: list[Any] = [
    FlowStep(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.zeros(1)),
    Sample("a", "b", Path("c")),
    Score("glcm", 1.0, "", 1, True),
    LatentSpec(4, 8, 2),
    SamplingDefaults(1024, 28, 7.0),
    Conditioning({}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen(value: Any) -> None:
    """What passes from one part to another cannot be changed on the way."""
    name = attrs.fields(type(value))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, name, None)


def test_granularity_is_downscale_times_patch() -> None:
    """SD3 at F8 takes multiples of 16 pixels, at F16 of 32."""
    assert [LatentSpec(16, downscale, 2).granularity for downscale in (8, 16)] == [16, 32]


def test_conditioning_knows_its_prompts_and_can_be_cut() -> None:
    """Length, slices and lists of rows act on every tensor."""
    both = Conditioning({"text": torch.arange(6).reshape(3, 2), "pooled": torch.arange(3)})
    assert len(both) == 3
    assert both[1:].tensors["text"].tolist() == [[2, 3], [4, 5]]
    assert both[[2, 0]].tensors["pooled"].tolist() == [2, 0]


def test_conditioning_moves_but_keeps_whole_numbers_whole() -> None:
    """A dtype applies to floating-point tensors only: token ids and masks stay what they are."""
    moved = Conditioning({"text": torch.ones(2, 3), "mask": torch.ones(2, dtype=torch.bool)}).to(
        device="meta", dtype=torch.bfloat16
    )
    assert (moved.tensors["text"].dtype, moved.tensors["mask"].dtype) == (torch.bfloat16, torch.bool)
    assert {tensor.device.type for tensor in moved.tensors.values()} == {"meta"}
    same = Conditioning({"text": torch.ones(2, 3)}).to(device="cpu")
    assert same.tensors["text"].dtype == torch.float32


def test_score_needs_no_settings() -> None:
    """Settings and details are empty unless given."""
    score = Score("glcm", 0.7, "bits", 3, None)
    assert (score.settings, score.details) == ({}, {})


def test_classes_satisfy_their_protocols(backbone: Any, metric: Any, tmp_path: Path) -> None:
    """The protocols are structural: no base class, `isinstance` looks at the shape."""
    pairs = [
        (backbone, Backbone),
        (MSELoss(), Loss),
        (FolderDataset(tmp_path), Dataset),
        (metric, Metric),
        (Lanczos(), Upscaler),
    ]
    for thing, protocol in pairs:
        assert isinstance(thing, protocol)
        assert not isinstance(object(), protocol)
