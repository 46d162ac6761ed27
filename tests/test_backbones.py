"""What backbone plugins share: text length, trained size, the autoencoder, and every scheduler that diffusers has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)

from d4k import ConfigError, LatentSpec, Pipeline, create
from d4k.backbones import ExactAutoencoder, flow_scheduler, freeze, modules, text_length, trained_patches
from d4k.flow import resolution_shift, shift_sigma
from d4k.sampling import SamplingSettings, SamplingStep, sample_latents, starting_noise

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
WORKING = {
    "euler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "euler, karras": FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True),
    "euler, exponential": FlowMatchEulerDiscreteScheduler(shift=3.0, use_exponential_sigmas=True),
    "euler, dynamic": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    "euler, linear": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear"),
    "euler, terminal": FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.02),
    "heun": FlowMatchHeunDiscreteScheduler(shift=3.0),
    "multistep": DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0),
    "multistep, third order": DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0, solver_order=3),
    "multistep, dynamic": DPMSolverMultistepScheduler(**FLOW, use_dynamic_shifting=True),
    "multistep, linear": DPMSolverMultistepScheduler(**FLOW, use_dynamic_shifting=True, time_shift_type="linear"),
    "singlestep": DPMSolverSinglestepScheduler(**FLOW, flow_shift=3.0, lower_order_final=True),
    "unipc": UniPCMultistepScheduler(**FLOW, flow_shift=3.0),
    "unipc, dynamic": UniPCMultistepScheduler(**FLOW, use_dynamic_shifting=True),
    "unipc, karras": UniPCMultistepScheduler(**FLOW, use_karras_sigmas=True),
}
REFUSED = {
    "lcm": (FlowMatchLCMScheduler(), "is no solver that d4k can step with"),
    "sa": (SASolverScheduler(**FLOW), "is no solver that d4k can step with"),
    "deis": (DEISMultistepScheduler(**FLOW), "is no solver that d4k can step with"),
    "diffusion": (UniPCMultistepScheduler(), "is not configured for flow matching"),
    "noise prediction": (DPMSolverMultistepScheduler(use_flow_sigmas=True), "is not configured for flow matching"),
    "stochastic": (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), "draws noise of its own"),
    "sde": (DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++"), "draws noise of its own"),
    "inverted": (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "makes no noise levels that fall from 1 to 0"),
    "karras": (DPMSolverMultistepScheduler(**FLOW, use_karras_sigmas=True), "makes no noise levels that fall from 1"),
    "other thousandths": (
        FlowMatchEulerDiscreteScheduler(num_train_timesteps=500),
        "each a thousandth of its timestep",
    ),
    "noisy": (DPMSolverMultistepScheduler(**FLOW, final_sigmas_type="sigma_min"), "set final_sigmas_type to 'zero'"),
    "spacing": (UniPCMultistepScheduler(**FLOW, timestep_spacing="odd"), "cannot make 4 steps of its configuration"),
}
MODELS = ("tiny-sd3", "tiny-flux")


@pytest.fixture(scope="module", params=MODELS)
def pipe(request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline.from_pretrained(request.param, device="cpu")


@pytest.fixture
def with_scheduler(pipe: Pipeline) -> Iterator[Any]:
    """Put another scheduler into the model, for one test."""
    parts = pipe.backbone.pipeline
    own = parts.scheduler

    def change(scheduler: Any) -> Any:
        parts.register_modules(scheduler=scheduler)
        return pipe.backbone

    yield change
    parts.register_modules(scheduler=own)


def toward(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Step along the straight line from noise to a picture, with the velocity that is exact on it."""
    scheduler.set_begin_index(0)
    noisy = noise
    for timestep in scheduler.timesteps:
        noisy = scheduler.step(noise - clean, timestep, noisy, return_dict=False)[0]
    return noisy


def settings(noise: torch.Tensor, steps: int) -> SamplingSettings:
    """Of pictures whose latent rows stand for 8 pixels."""
    return SamplingSettings(8 * noise.shape[-1], 8 * noise.shape[-2], steps=steps, guidance=1.0)


@pytest.mark.parametrize("name", WORKING)
def test_flow_solvers_arrive_at_the_picture(name: str) -> None:
    """Each that is allowed follows a straight flow to its end, up to what it takes the noise to be short of pure."""
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for steps in (2, 7):
        scheduler = flow_scheduler(WORKING[name], steps, 1024)
        short = 1 - float(scheduler.sigmas[0])
        assert short < 0.01
        assert (toward(scheduler, clean, noise) - clean).abs().max() < short * (noise - clean).abs().max() + 1e-4
        assert scheduler.sigmas.device == scheduler.timesteps.device == torch.device("cpu")
        assert len(scheduler.timesteps) == (2 * steps - 1 if name == "heun" else steps)


@pytest.mark.parametrize("name", WORKING)
def test_flow_solvers_sample_with_both_models(with_scheduler: Any, name: str) -> None:
    """The core's loop runs with each on the tiny models; the last preview is the picture."""
    backbone = with_scheduler(WORKING[name])
    seen: list[SamplingStep] = []
    noise = starting_noise(backbone, [0], 64, 96)

    result = sample_latents(backbone, ["a tabby cat"], noise, settings(noise, 4), on_step=seen.append)

    assert torch.isfinite(result).all()
    assert [step.steps for step in seen] == [len(seen)] * (7 if name == "heun" else 4)
    torch.testing.assert_close(seen[-1].clean, result, rtol=1e-3, atol=1e-3)


def test_solvers_agree_on_the_picture(with_scheduler: Any) -> None:
    """With enough steps every solver integrates the same flow: latents of Heun, UniPC and DPM-Solver++ are near."""
    found = {}
    for name in ("heun", "multistep", "unipc"):
        backbone = with_scheduler(WORKING[name])
        noise = starting_noise(backbone, [0], 32, 32)
        found[name] = sample_latents(backbone, ["a tabby cat"], noise, settings(noise, 60))

    scale = found["heun"].std()
    assert all((found[name] - found["heun"]).abs().mean() < 0.1 * scale for name in ("multistep", "unipc"))


@pytest.mark.parametrize("name", REFUSED)
def test_other_schedulers_are_refused_in_a_sentence(with_scheduler: Any, name: str) -> None:
    """It names the scheduler and what is wrong with it."""
    scheduler, words = REFUSED[name]
    with pytest.raises(ConfigError, match=f"{type(scheduler).__name__}.* {words}"):
        with_scheduler(scheduler).scheduler(4, 64, 64)


def test_a_single_step_is_taken_or_refused() -> None:
    """A stretched schedule of one step would be 0 / 0."""
    assert flow_scheduler(WORKING["heun"], 1, 16).sigmas.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="makes no noise levels that fall from 1 to 0 in 1 step"):
        flow_scheduler(WORKING["euler, terminal"], 1, 16)


def test_a_refusal_says_what_is_allowed() -> None:
    """The classes, the keys of the solvers, and the file they are in."""
    with pytest.raises(ConfigError, match="FlowMatchLCMScheduler") as caught:
        flow_scheduler(FlowMatchLCMScheduler(), 4, 16)
    for word in (
        "scheduler_config.json",
        "FlowMatchHeunDiscreteScheduler",
        "UniPCMultistepScheduler",
        "use_flow_sigmas",
    ):
        assert word in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers makes them in a way that NumPy 2 deprecates
@pytest.mark.parametrize("name", sorted(n for n in dir(diffusers) if n.endswith("Scheduler") and "Flax" not in n))
def test_every_scheduler_of_diffusers_works_or_is_refused(name: str) -> None:
    """As it is by default, each but Euler's and Heun's of flow matching is a `ConfigError` that names it."""
    try:
        like = getattr(diffusers, name)()
    except (TypeError, ImportError) as error:
        pytest.skip(f"needs more than its defaults: {error}")
    if name in ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"):
        assert flow_scheduler(like, 4, 16).sigmas[-1] == 0
    else:
        with pytest.raises(ConfigError, match=f"the model's scheduler, {name}, is "):
            flow_scheduler(like, 4, 16)


@pytest.mark.parametrize(
    "name", ["euler", "euler, dynamic", "heun", "multistep", "multistep, dynamic", "unipc, dynamic"]
)
def test_a_given_shift_replaces_that_of_the_checkpoint(name: str) -> None:
    """Whatever the class calls it, and also where the checkpoint shifts by the size of the picture."""
    plain, shifted = (flow_scheduler(WORKING[name], 8, 1024, shift=shift).sigmas for shift in (1.0, 4.0))

    assert (shifted - shift_sigma(plain, 4.0)).abs().max() < 0.02  # the last of Euler's depends on the shift twice
    assert (shifted - plain).abs().max() > 0.2


@pytest.mark.parametrize("name", ["euler, dynamic", "multistep, dynamic", "unipc, dynamic"])
def test_the_number_of_tokens_shifts_every_class_alike(name: str) -> None:
    """Dynamic shifting of the exponential kind is a shift of exp(mu)."""
    dynamic = flow_scheduler(WORKING[name], 8, 4096, max_shift=1.16)
    mu = resolution_shift(WORKING[name].config, 4096, max_shift=1.16)

    expected = flow_scheduler(WORKING[name], 8, 0, shift=math.exp(mu)).sigmas
    assert (dynamic.sigmas - expected).abs().max() < (0.01 if name == "euler, dynamic" else 1e-6)
    assert (dynamic.sigmas - flow_scheduler(WORKING[name], 8, 256).sigmas).abs().max() > 0.1


def test_the_scheduler_of_the_pipeline_is_not_changed() -> None:
    """Each call makes one of its own."""
    like = DPMSolverMultistepScheduler(**FLOW, use_dynamic_shifting=True)
    before = dict(like.config)
    assert flow_scheduler(like, 4, 1024, shift=5.0) is not like
    flow_scheduler(like, 4, 1024)
    assert dict(like.config) == before


def test_text_length_is_what_the_tokenizer_takes() -> None:
    """The usual number as far as the tokenizer goes; more than that is refused, fewer are not."""
    short = SimpleNamespace(model_max_length=77)
    assert text_length(None, short, 256) == 77
    assert text_length(12, short, 256) == 12
    assert text_length(None, SimpleNamespace(model_max_length=10**30), 256) == 256
    assert text_length(None, None, 256) == 256
    with pytest.raises(ConfigError, match="text_tokens is 78, but the tokenizer of this model takes at most 77"):
        text_length(78, short, 256)


def test_the_trained_size_is_counted_in_tokens() -> None:
    """Pixels are divided by the granularity; latent rows of the checkpoint stay with another stride."""
    narrow, wide = LatentSpec(16, 8, 2), LatentSpec(16, 16, 2)
    assert [trained_patches(None, latent, 128) for latent in (narrow, wide)] == [64, 64]
    assert [trained_patches(1024, latent, 128) for latent in (narrow, wide)] == [64, 32]
    with pytest.raises(ConfigError, match="trained_size is 31, but a token of this model is 32 pixels"):
        trained_patches(31, wide, 128)


def test_tokens_of_an_image() -> None:
    """One for each `granularity` squared."""
    assert LatentSpec(16, 16, 2).tokens(4096, 2048) == 128 * 64


def test_all_models_but_the_denoiser_are_frozen(pipe: Pipeline) -> None:
    """By the names of the pipeline."""
    parts = modules(pipe.backbone.pipeline)
    assert {"transformer", "vae", "text_encoder"} <= set(parts)
    assert "scheduler" not in parts
    assert "tokenizer" not in parts
    freeze(pipe.backbone.pipeline)
    assert {name for name, part in parts.items() if any(p.requires_grad for p in part.parameters())} == {"transformer"}


def test_the_autoencoder_keeps_its_bound_on_memory(pipe: Pipeline) -> None:
    """It is that of the placement: with too little, encoding and decoding say so."""
    vae = modules(pipe.backbone.pipeline)["vae"]
    free, tight = ExactAutoencoder(vae, 8), ExactAutoencoder(vae, 8, 1e-6)
    latent = free.encode(torch.zeros(1, 3, 64, 64))
    assert free.decode(latent).shape == (1, 3, 64, 64)
    with pytest.raises(ConfigError, match="memory_gb=1e-06 is too little to encode"):
        tight.encode(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match="memory_gb=1e-06 is too little to decode"):
        tight.decode(latent)


def test_a_bound_on_memory_reaches_the_autoencoder_of_a_loaded_model() -> None:
    """Of both models."""
    for name in MODELS:
        pipe = Pipeline.from_pretrained(name, device="cpu", memory_gb=0.5)
        assert pipe.backbone.autoencoder.memory_gb == 0.5


WRONG = {
    "positions": ("stretch", "one of native, interpolate"),
    "temperature": ("cold", "one of "),
    "trained_size": ("big", "a whole number of at least 1"),
    "text_tokens": (True, "a whole number of at least 1"),
    "downscale": (8.0, "one of 8, 16"),
    "steps": (2.5, "a whole number of at least 1"),
    "guidance": ("high", "a number of at least 0"),
}

ALSO = {
    ("tiny-flux", "positions"): ", ntk, yarn, resonance-yarn",
    ("tiny-flux", "temperature"): "auto, trained, proportional, yarn",
    ("tiny-sd3", "temperature"): "trained, proportional",
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("option", WRONG)
def test_an_option_of_the_wrong_type_names_what_is_allowed(model: str, option: str, tmp_path: Path) -> None:
    """In one sentence that has the option, the value, and no name of a Python type."""
    value, allowed = WRONG[option]
    allowed += ALSO.get((model, option), "")
    backbone = model.removeprefix("tiny-")
    with pytest.raises(ConfigError) as caught:
        create("backbone", backbone, source=str(tmp_path), **{option: value})
    assert str(caught.value) == f"backbone '{backbone}': {option} must be {allowed}, got {value!r}"


@pytest.mark.parametrize("value", [10**400, 10**5000, math.nan, math.inf, -1], ids=range(5))
def test_numbers_beyond_floats_are_refused_in_a_sentence(value: float) -> None:
    """A whole number of any length, too, which Python would not even write."""
    with pytest.raises(ConfigError, match="guidance must be a number of at least 0( that float32 holds .*)?, got "):
        create("backbone", "sd3", source="x", guidance=value)
