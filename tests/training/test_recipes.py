"""The recipes of the paper train at the noise levels of its released code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d4k.config import RunConfig, from_mapping, read_toml
from d4k.flow import sample_sigma

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("name", "mean", "above_half"), [("sd3", 0.715, 0.86), ("flux", 0.5, 0.5)])
def test_noise_levels_of_the_recipe_are_those_of_the_released_code(name: str, mean: float, above_half: float) -> None:
    """SD3 at logit-normal levels through a shift of 3, FLUX.1 at uniform ones, all of weight 1."""
    flow = from_mapping(RunConfig, read_toml(EXAMPLES / f"train_{name}_4k.toml")).flow
    sigma = sample_sigma(
        200_000,
        density=flow.density,
        mean=flow.mean,
        std=flow.std,
        mode_scale=flow.mode_scale,
        shift=flow.shift,
        generator=torch.Generator().manual_seed(0),
    )
    assert sigma.mean().item() == pytest.approx(mean, abs=0.003)
    assert (sigma > 0.5).float().mean().item() == pytest.approx(above_half, abs=0.005)
    assert flow.weighting == "none"
