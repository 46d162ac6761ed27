"""A backbone against the stock pipeline of diffusers: the same weights and noise give the same picture."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from d4k.protocols import Backbone
from d4k.sampling import SamplingSettings, SamplingStep, sample_latents, starting_noise
from d4k.testing.attempt import attempt, check_options, distance, shape_of

__all__ = ["check_against_diffusers"]

PROMPTS = ("a tabby cat", "a rocket lifting off at night")


@torch.no_grad()
def check_against_diffusers(
    backbone: Backbone,
    *,
    pipeline: Any = None,
    unpack: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    tolerance: float = 1e-4,
    **call: Any,
) -> None:
    """Check that d4k samples what the stock diffusers pipeline does: every latent on the way, and the pixels.

    This is the one check that sees a wrong sign, reversed time, a wrong schedule, a wrong scale of the timestep or of
    the text, whatever the weights are. Run it once with guidance, once without, and with a negative prompt.

    Args:
        backbone: loaded in float32.
        pipeline: the stock pipeline of the same weights; None takes `backbone.pipeline`.
        unpack: turns the pipeline's latents into (B, C, h, w); None knows those that are so already, and tokens of
            `patch` x `patch`, (B, N, C * patch**2), as those of FLUX.
        seed: of the first picture; each further one has the next.
        tolerance: largest difference that is allowed, as a part of the largest value (at least of 1).
        call: arguments of the pipeline's `__call__`: `prompt`, `negative_prompt`, `guidance_scale`,
            `num_inference_steps`, `height` and `width` are handed to d4k's sampling as well, all others to the pipeline
            alone. Left out, there are two prompts, 4 steps, a size that is not square, and the guidance scale that is
            the pipeline's default.

    Raises:
        AssertionError: they differ; the sentence says from which step on, or that only the decoded pixels do.

    >>> from d4k import Pipeline
    >>> backbone = Pipeline.from_pretrained("tiny-sd3", device="cpu").backbone
    >>> check_against_diffusers(backbone, guidance_scale=4.0, num_inference_steps=2)
    """
    check_options(backbone)
    pipeline = getattr(backbone, "pipeline", None) if pipeline is None else pipeline
    assert callable(pipeline), "the stock pipeline is an attribute `pipeline` of the backbone, or given as pipeline="
    wanted = _wanted(backbone, pipeline, call)
    seeds = [seed + number for number in range(len(wanted.prompts))]
    steps, pixels = _stock(pipeline, wanted, seeds)
    shape = (len(seeds), *_latent_shape(backbone, wanted))
    expected = [_unpacked(latent, shape, backbone.latent.patch, unpack) for latent in steps]
    ours = _ours(backbone, wanted, seeds)
    assert len(ours) == len(expected), f"the stock pipeline takes {len(expected)} steps, d4k {len(ours)}"
    for number, (got, latent) in enumerate(zip(ours, expected, strict=True), 1):
        away = _away(got, latent)
        assert away <= tolerance, (
            f"latents differ from the stock pipeline's by {away:.2g} after step {number} of {len(ours)}: "
            + _advice(number)
        )
    got = attempt("decode of the latents", lambda: backbone.decode(ours[-1])).float().cpu() / 2 + 0.5
    assert got.shape == pixels.shape, f"decode gives {shape_of(got)}, the stock pipeline {shape_of(pixels)}"
    away = _away(got.clamp(0, 1), pixels.float().cpu())
    assert away <= tolerance, (
        f"the latents are the stock pipeline's, but pixels differ by {away:.2g}: decode scales or shifts otherwise"
    )


@frozen
class Wanted:
    """One call of the stock pipeline, and what d4k's sampling needs to know of it."""

    prompts: list[str]
    negative: str
    guidance: float
    steps: int
    height: int
    width: int
    call: Mapping[str, Any]


def _wanted(backbone: Backbone, pipeline: Any, call: Mapping[str, Any]) -> Wanted:
    known = inspect.signature(type(pipeline).__call__).parameters
    unknown = sorted(set(call) - set(known))
    assert not unknown, f"{type(pipeline).__name__} has no argument {unknown}; it has {sorted(known)}"
    set_here = {"generator", "latents", "output_type", "callback_on_step_end", "return_dict"} & set(call)
    assert not set_here, f"{sorted(set_here)} are set by the check; give seed= for other noise"
    unit = backbone.latent.granularity
    usual = {"prompt": list(PROMPTS), "num_inference_steps": 4, "height": 5 * unit, "width": 3 * unit}
    settings = {**usual, **call}
    prompt = settings["prompt"]
    settings["prompt"] = [prompt] if isinstance(prompt, str) else list(prompt)
    scale = settings.get("guidance_scale", known["guidance_scale"].default if "guidance_scale" in known else 1.0)
    if "use_resolution_binning" in known:  # it would generate another size, and scale the picture
        settings.setdefault("use_resolution_binning", False)
    size = settings["height"], settings["width"]
    negative = settings.get("negative_prompt") or ""
    if negative:  # some pipelines want one a prompt
        settings["negative_prompt"] = [negative] * len(settings["prompt"])
    return Wanted(settings["prompt"], negative, float(scale), settings["num_inference_steps"], *size, call=settings)


def _stock(pipeline: Any, wanted: Wanted, seeds: list[int]) -> tuple[list[Tensor], Tensor]:
    """The latents after each step, as the pipeline holds them, and its pixels in [0, 1]."""
    steps: list[Tensor] = []

    def keep(pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        steps.append(values["latents"].clone())
        return values

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    pipeline.set_progress_bar_config(disable=True)
    result = attempt(
        "the stock pipeline's own call",
        lambda: pipeline(**wanted.call, generator=generators, output_type="pt", callback_on_step_end=keep),
    )
    return steps, result.images


def _ours(backbone: Backbone, wanted: Wanted, seeds: list[int]) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(step: SamplingStep) -> None:
        found.append(step.noisy)

    noise = starting_noise(backbone, seeds, wanted.width, wanted.height)
    settings = SamplingSettings(
        wanted.width, wanted.height, steps=wanted.steps, guidance=wanted.guidance, negative_prompt=wanted.negative
    )
    attempt(
        "sampling with d4k",
        lambda: sample_latents(backbone, wanted.prompts, noise, settings, on_step=keep),
    )
    return found


def _latent_shape(backbone: Backbone, wanted: Wanted) -> tuple[int, int, int]:
    spec = backbone.latent
    return spec.channels, wanted.height // spec.downscale, wanted.width // spec.downscale


def _unpacked(latent: Tensor, shape: tuple[int, ...], patch: int, unpack: Callable[[Tensor], Tensor] | None) -> Tensor:
    count, channels, height, width = shape
    if unpack is not None:
        latent = unpack(latent)
    elif latent.shape == (count, height * width // patch**2, channels * patch**2):
        grid = latent.transpose(1, 2).reshape(count, -1, height // patch, width // patch)
        latent = F.pixel_shuffle(grid, patch)
    elif latent.ndim == 5 and latent.shape[2] == 1:  # of models that make films, too
        latent = latent[:, :, 0]
    assert latent.shape == shape, f"the stock pipeline's latents are {shape_of(latent)}, not {shape}: pass unpack="
    return latent


def _away(got: Tensor, expected: Tensor) -> float:
    if not (torch.isfinite(got).all() and torch.isfinite(expected).all()):
        return float("inf")
    largest = max(1.0, float(got.abs().max()), float(expected.abs().max()))
    return distance(got.cpu(), expected.cpu()) if largest > 1 else float((got.cpu() - expected.cpu()).abs().max())


def _advice(step: int) -> str:
    if step == 1:
        return (
            "sign or scale of the velocity, sigma, guidance or text, the order of the noise, or the schedule is wrong"
        )
    return "the schedule, or how sigma reaches the denoiser, is wrong"
