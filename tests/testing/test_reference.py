"""The check against diffusers passes both tiny models, and says from which step on another sampler differs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d4k import Pipeline, Placement
from d4k.testing import check_against_diffusers

TEXT = {"max_sequence_length": 24}
"""Quick to compute; by default texts are as long as diffusers pads them."""


@pytest.fixture(scope="module", params=["tiny-sd3", "tiny-flux"])
def tiny(request: pytest.FixtureRequest) -> Any:
    return Pipeline.from_pretrained(request.param, device="cpu", positions="native", text_tokens=24).backbone


def test_tiny_models_sample_what_diffusers_does(tiny: Any) -> None:
    """With the pipeline's own guidance, two prompts, and a size that is not square."""
    check_against_diffusers(tiny, num_inference_steps=2, **TEXT)


def test_arguments_go_to_both(tiny: Any) -> None:
    """One prompt, another seed and size; latents that are unpacked by the caller; a pipeline that is given."""
    stock, tiny.pipeline = tiny.pipeline, None
    with pytest.raises(AssertionError, match="the stock pipeline is an attribute `pipeline` of the backbone, or given"):
        check_against_diffusers(tiny, **TEXT)
    tiny.pipeline = stock
    seen: list[torch.Size] = []

    def unpack(latent: torch.Tensor) -> torch.Tensor:
        seen.append(latent.shape)
        return torch.zeros(1, 16, 4, 8)

    with pytest.raises(AssertionError, match="after step 1 of 1: sign or scale of the velocity"):
        check_against_diffusers(
            tiny,
            pipeline=stock,
            unpack=unpack,
            seed=5,
            prompt="a cat",
            width=64,
            height=32,
            num_inference_steps=1,
            guidance_scale=1.0,
            **TEXT,
        )
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"guidance": 2.0}, r"has no argument \['guidance'\]; it has \["),
        ({"output_type": "pil"}, r"\['output_type'\] are set by the check"),
        ({"prompt": [], **TEXT}, "the stock pipeline's own call must work"),
    ],
)
def test_calls_that_cannot_be_compared_are_refused(tiny: Any, call: dict[str, Any], sentence: str) -> None:
    """In a sentence, before or while the stock pipeline is asked."""
    with pytest.raises(AssertionError, match=sentence):
        check_against_diffusers(tiny, **call)


def test_pixels_are_compared_where_latents_agree(tiny: Any) -> None:
    """A decoder of another scale is found, and named as such."""

    class Pale(type(tiny)):  # type: ignore[misc]
        def decode(self, latent: torch.Tensor) -> torch.Tensor:
            return super().decode(latent) * 0.5  # type: ignore[no-any-return]

    pale = Pale(tiny.source, positions="native", text_tokens=24)
    pale.load(Placement(torch.device("cpu"), torch.float32))
    with pytest.raises(AssertionError, match="the latents are the stock pipeline's, but pixels differ"):
        check_against_diffusers(pale, num_inference_steps=1, **TEXT)
