"""The Euler loop: against an integration written out, and independent of batch size and place."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from d4k import LatentSpec
from d4k.errors import ConfigError
from d4k.images import to_uint8
from d4k.models import Model, ModelRef
from d4k.sampling import (
    SamplingSettings,
    SamplingStep,
    check_size,
    choose_settings,
    first_step,
    sample,
    sample_latents,
    starting_noise,
)

PROMPTS = ["a", "b", "c"]
SIZE: dict[str, Any] = {"width": 16, "height": 12, "steps": 3, "guidance": 2.0}


def generate(backbone: Any, prompts: list[str], seeds: list[int], batch_size: int = 1, **settings: Any) -> list[Tensor]:
    on_step, chosen = settings.pop("on_step", None), SamplingSettings(**{**SIZE, **settings})
    return list(sample(backbone, prompts, seeds, chosen, batch_size=batch_size, on_step=on_step))


def settings(**given: Any) -> SamplingSettings:
    return SamplingSettings(**{**SIZE, **given})


def test_noise_depends_on_seed_and_size_only(backbone: Any) -> None:
    """Each picture has a generator of its own on the CPU."""
    noise = starting_noise(backbone, [5, 6, 5], 16, 12)
    assert noise.shape == (3, 12, 6, 8)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(starting_noise(backbone, [6], 16, 12)[0], noise[1])
    expected = torch.randn((1, 12, 6, 8), generator=torch.Generator().manual_seed(6))
    assert torch.equal(noise[1:2], expected)


@torch.no_grad()
def test_latents_are_those_of_an_euler_integration(backbone: Any) -> None:
    """From sigma 1 to 0 by `x + (next - sigma) * velocity`, with classifier-free guidance."""
    noise = starting_noise(backbone, [0, 1], 16, 12)
    text, sigmas = backbone.encode_text(["a", "b"], "bad"), backbone.scheduler(4, 12, 16).sigmas
    expected = noise
    for sigma, following in pairwise(sigmas):
        velocity = backbone.velocity(expected, sigma.expand(2), text, 2.5)
        expected = expected + (following - sigma) * velocity
    found = sample_latents(backbone, ["a", "b"], noise, settings(steps=4, guidance=2.5, negative_prompt="bad"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_picture_is_the_decoded_latent_as_bytes(backbone: Any) -> None:
    """uint8, (3, H, W), on the CPU."""
    picture = generate(backbone, ["a"], [3])[0]
    latent = sample_latents(backbone, ["a"], starting_noise(backbone, [3], 16, 12), settings(steps=3, guidance=2.0))
    assert (picture.shape, picture.dtype, picture.device.type) == ((3, 12, 16), torch.uint8, "cpu")
    assert torch.equal(picture, to_uint8(backbone.decode(latent)[0]))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_picture_does_not_depend_on_batch_size_or_place(backbone: Any, batch_size: int) -> None:
    """Picture i with seed s is the same alone, in a batch, and at another place of it."""
    alone = [generate(backbone, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, (7, 8, 9), strict=True)]
    together = generate(backbone, PROMPTS, [7, 8, 9], batch_size=batch_size)
    backwards = generate(backbone, PROMPTS[::-1], [9, 8, 7], batch_size=batch_size)
    for one, two, three in zip(alone, together, backwards[::-1], strict=True):
        # float sums may round otherwise in a batch: one grey level at most
        assert (one.int() - two.int()).abs().max() <= 1
        assert (one.int() - three.int()).abs().max() <= 1


def test_seed_prompt_guidance_and_negative_prompt_matter(backbone: Any) -> None:
    """None of the inputs is ignored."""
    base = generate(backbone, ["a"], [0])[0]
    changed = [
        generate(backbone, ["a"], [1])[0],
        generate(backbone, ["b"], [0])[0],
        generate(backbone, ["a"], [0], guidance=9.0)[0],
        generate(backbone, ["a"], [0], negative_prompt="blurred")[0],
        generate(backbone, ["a"], [0], steps=5)[0],
    ]
    assert all(not torch.equal(base, other) for other in changed)


def test_every_step_is_reported(backbone: Any) -> None:
    """Steps count from 1, sigma falls from 1, `first` is the index of the batch's first prompt."""
    seen: list[SamplingStep] = []
    generate(backbone, PROMPTS, [0, 1, 2], batch_size=2, on_step=seen.append)
    assert [(s.step, s.steps, s.first, len(s.noisy)) for s in seen] == [
        (1, 3, 0, 2), (2, 3, 0, 2), (3, 3, 0, 2), (1, 3, 2, 1), (2, 3, 2, 1), (3, 3, 2, 1),
    ]  # fmt: skip
    assert seen[0].sigma == pytest.approx(1)
    assert seen[0].sigma > seen[1].sigma > seen[2].sigma > 0


def test_preview_is_the_clean_latent_that_the_model_sees(backbone: Any) -> None:
    """`clean = noisy - sigma * velocity` with the latent before the step; at the last step it is the result."""
    seen: list[SamplingStep] = []
    noise = starting_noise(backbone, [0], 16, 12)
    result = sample_latents(backbone, ["a"], noise, settings(steps=3, guidance=1.0), on_step=seen.append)
    with torch.no_grad():
        velocity = backbone.velocity(noise, torch.ones(1), backbone.encode_text(["a"], ""), 1.0)
    torch.testing.assert_close(seen[0].clean, noise - velocity)
    torch.testing.assert_close(seen[-1].clean, result, rtol=1e-5, atol=1e-5)
    assert torch.equal(seen[-1].noisy, result)


def test_model_sees_its_own_dtype_and_nothing_else_is_rounded(backbone: Any) -> None:
    """A bfloat16 model is given bfloat16 latents; noise levels, and latents between the steps, stay float32."""
    backbone.trainable.to(torch.bfloat16)
    seen: list[SamplingStep] = []
    given: list[tuple[torch.dtype, torch.dtype]] = []
    velocity = type(backbone).velocity

    def record(noisy: Tensor, sigma: Tensor, *rest: Any) -> Tensor:
        given.append((noisy.dtype, sigma.dtype))
        return velocity(backbone, noisy, sigma, *rest)

    backbone.velocity = record
    generate(backbone, ["a"], [0], on_step=seen.append)
    assert set(given) == {(torch.bfloat16, torch.float32)}
    assert {s.noisy.dtype for s in seen} == {s.clean.dtype for s in seen} == {torch.float32}


def multistep(steps: int, height: int, width: int, shift: float | None = None) -> DPMSolverMultistepScheduler:
    """A solver with a history, which rounds its timesteps down to whole numbers."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift or 1.0
    )
    scheduler.set_timesteps(steps)
    return scheduler


# diffusers hands torch tensors to NumPy in a way that NumPy 2 deprecates
multistep_warns = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@multistep_warns
def test_preview_is_exact_under_a_solver_that_rounds_its_timesteps(backbone: Any) -> None:
    """The noise level of a step is the solver's own: at the last step the preview is the result."""
    backbone.scheduler = multistep
    seen: list[SamplingStep] = []
    noise = starting_noise(backbone, [0], 16, 12)
    result = sample_latents(backbone, ["a"], noise, settings(steps=3, guidance=1.0), on_step=seen.append)
    assert [s.sigma for s in seen] == multistep(3, 12, 16).sigmas[:-1].tolist()
    torch.testing.assert_close(seen[-1].clean, result, rtol=1e-5, atol=1e-5)


@multistep_warns
def test_repeated_timesteps_do_not_lead_a_solver_astray(backbone: Any) -> None:
    """With a large shift the first timesteps round to the same number; every step is made all the same."""
    backbone.scheduler = multistep
    timesteps = multistep(8, 12, 16, 500.0).timesteps
    assert timesteps[0] == timesteps[1]
    noise = starting_noise(backbone, [0], 16, 12)
    seen: list[SamplingStep] = []
    result = sample_latents(backbone, ["a"], noise, settings(steps=8, guidance=1.0, shift=500.0), on_step=seen.append)
    torch.testing.assert_close(seen[-1].clean, result, rtol=1e-5, atol=1e-5)


@multistep_warns
def test_a_solver_with_a_history_begins_anew_with_every_batch(backbone: Any) -> None:
    """The second picture is the same after a first one as alone."""
    backbone.scheduler = multistep
    together = generate(backbone, ["a", "b"], [0, 1], steps=4)
    assert torch.equal(together[1], generate(backbone, ["b"], [1], steps=4)[0])


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_in_the_mode_it_was_in(backbone: Any, training: bool) -> None:
    """Sampling within training switches dropout off and on again, also after an error."""
    backbone.trainable.train(training)
    modes: list[bool] = []
    generate(backbone, ["a"], [0], on_step=lambda step: modes.append(backbone.trainable.training))
    assert modes == [False] * 3
    assert backbone.trainable.training is training

    def fail(step: SamplingStep) -> None:
        raise KeyError("stop")

    with pytest.raises(KeyError):
        generate(backbone, ["a"], [0], on_step=fail)
    assert backbone.trainable.training is training


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (18, 12, "width 18 is not a multiple of 4; nearest: 16 or 20"),
        (16, 13, "height 13 is not a multiple of 4; nearest: 12 or 16"),
        (3, 12, "width 3 is not a multiple of 4; nearest: 4$"),
        (0, 12, "width 0 is not a multiple of 4; nearest: 4$"),
        (-8, 12, "width -8 is not a multiple of 4; nearest: 4$"),
        (16, 68, "this model covers at most 64 pixels; asked for height 68. Choose at most 64 pixels$"),
        (66, 12, "this model covers at most 64 pixels; asked for width 66"),
    ],
)
def test_sizes_that_cannot_be_generated_are_refused_with_the_nearest(
    backbone: Any, width: int, height: int, message: str
) -> None:
    """The check comes before any computation."""
    with pytest.raises(ConfigError, match=message):
        check_size(backbone, width, height)
    with pytest.raises(ConfigError, match=message.replace("this model", "fake")):
        choose_settings(backbone, Model(ModelRef("fake-model"), "fake", ""), {"width": width, "height": height})


def test_limit_is_named_for_every_stride_that_the_backbone_offers(backbone: Any, monkeypatch: Any) -> None:
    """It grows with the stride; one that would do is the first thing to try."""
    spec = LatentSpec(
        channels=12, downscale=2, patch=2, max_size=64, downscales=(2, 4), beyond="the backbone option wide=true"
    )
    monkeypatch.setattr(type(backbone), "latent", spec)
    with pytest.raises(ConfigError) as caught:
        check_size(backbone, 100, 12, name="fake")
    assert str(caught.value) == (
        "fake covers at most 128 pixels with F4, 64 pixels with F2; asked for width 100 with F2. Choose the backbone "
        "option downscale=4, or at most 64 pixels, or the backbone option wide=true"
    )
    with pytest.raises(ConfigError, match=r"asked for width 132 with F2. Choose at most 64 pixels, or"):
        check_size(backbone, 132, 12, name="fake")


def test_nearest_size_does_not_exceed_the_limit(backbone: Any, monkeypatch: Any) -> None:
    """A limit need not be a multiple of the granularity."""
    monkeypatch.setattr(type(backbone), "latent", LatentSpec(channels=12, downscale=2, patch=2, max_size=63))
    with pytest.raises(ConfigError, match=r"width 62 is not a multiple of 4; nearest: 60$"):
        check_size(backbone, 62, 12)


def test_sizes_up_to_the_limit_are_allowed(backbone: Any) -> None:
    """The largest size the positions cover is itself allowed, and so is one granule."""
    check_size(backbone, 64, 4)


@pytest.mark.parametrize(
    ("levels", "restart", "order", "place"),
    [
        ([1.0, 0.8, 0.5], 1.0, 1, 0),
        ([0.9996, 0.8, 0.5], 1.0, 1, 0),
        ([1.0, 0.8, 0.5], 0.8, 1, 1),
        ([1.0, 0.800000011920929, 0.5], 0.8, 1, 1),  # float32
        ([1.0, 0.8, 0.5], 0.79, 1, 2),
        ([1.0, 0.8, 0.8, 0.5, 0.5], 0.8, 2, 2),  # Heun's asks twice, and a step is not begun in its middle
        ([1.0, 0.8, 0.8, 0.5, 0.5], 0.6, 2, 4),
    ],
)
def test_a_picture_is_renoised_to_the_first_level_at_or_below(
    levels: list[float], restart: float, order: int, place: int
) -> None:
    assert first_step(levels, restart, order) == place


def test_a_guide_that_returns_the_estimate_changes_no_bit(backbone: Any) -> None:
    noise, seen = starting_noise(backbone, [0], 16, 12), []
    free = sample_latents(backbone, ["a"], noise, settings())
    same = sample_latents(backbone, ["a"], noise, settings(), guide=lambda one: (seen.append(one), one.clean)[1])
    assert torch.equal(free, same)
    assert [(one.step, one.steps) for one in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [one.sigma for one in seen] == backbone.scheduler(3, 12, 16).sigmas[:-1].tolist()
    assert torch.equal(seen[0].noisy, noise)
    assert {one.clean.dtype for one in seen} == {torch.float32}


def test_a_guide_changes_the_step_that_is_taken(backbone: Any) -> None:
    """A copy of the estimate is the same within rounding; one that is held to a picture arrives at it."""
    noise, goal = starting_noise(backbone, [0, 1], 16, 12), torch.full((1, 12, 6, 8), 0.25)
    free = sample_latents(backbone, ["a"], noise[:1], settings())
    copied = sample_latents(backbone, ["a"], noise[:1], settings(), guide=lambda one: one.clean + 0)
    torch.testing.assert_close(free, copied, rtol=1e-4, atol=1e-4)
    steps: list[SamplingStep] = []
    held = sample_latents(backbone, ["a"], noise[:1], settings(), guide=lambda _: goal.double(), on_step=steps.append)
    torch.testing.assert_close(held, goal, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(step.clean, goal) for step in steps)


@pytest.mark.parametrize(("wrong", "got"), [(None, "NoneType"), (torch.zeros(1, 12, 6, 7), r"\(1, 12, 6, 7\)")])
def test_a_guide_that_returns_no_estimate_is_refused(backbone: Any, wrong: Any, got: str) -> None:
    noise = starting_noise(backbone, [0], 16, 12)
    with pytest.raises(ConfigError, match=rf"a guide must return .* \(1, 12, 6, 8\), got {got}; return estimate.clean"):
        sample_latents(backbone, ["a"], noise, settings(), guide=lambda _: wrong)


def test_a_guide_that_returns_no_numbers_is_named(backbone: Any) -> None:
    """And not the model."""
    noise = starting_noise(backbone, [0], 32, 32)
    with pytest.raises(ConfigError, match="a guide returned values that are no numbers before step 1"):
        sample_latents(backbone, ["a"], noise, settings(), guide=lambda estimate: estimate.clean * torch.nan)
