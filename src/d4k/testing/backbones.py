"""The contract of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor

from d4k.protocols import Backbone
from d4k.testing.attempt import attempt, check_options, like, shape_of
from d4k.testing.latents import check_latents
from d4k.testing.saving import check_saving
from d4k.testing.schedules import check_scheduler
from d4k.testing.shapes import check_meta
from d4k.testing.texts import check_texts
from d4k.testing.trial import PROMPTS, Trial, trial_of

__all__ = ["check_backbone"]


def check_backbone(backbone: Backbone) -> None:
    """Check everything that can be seen of a backbone without its stock pipeline.

    What it says of itself is consistent; latents are scaled and pixels lie in [-1, 1]; text, mask, guidance, negative
    prompt, noise level and shift all have an effect, guidance in the right direction; the denoiser is trained through
    `trainable`, and what was trained is saved; a second instance of the same options computes shapes on the device
    "meta", in the way planning does. What only a comparison can show, `check_against_diffusers` does.

    Args:
        backbone: loaded in float32; random weights will do. It is left as it was.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(backbone)
    _check_statements(backbone)
    trial = trial_of(backbone)
    check_latents(trial)
    check_scheduler(trial)
    _check_velocity(trial)
    check_texts(trial)
    _check_training(trial)
    check_meta(backbone)
    check_saving(trial)


def _check_statements(backbone: Backbone) -> None:
    """What a backbone says of itself, before anything is computed."""
    names = ("latent", "defaults", "components", "trainable", "trained_options")
    for name in names:
        attempt(f"{name} of a loaded backbone", partial(getattr, backbone, name))
    spec, defaults = backbone.latent, backbone.defaults
    sides = {"channels": spec.channels, "downscale": spec.downscale, "patch": spec.patch}
    for name, value in sides.items():
        assert isinstance(value, int) and value > 0, f"latent.{name} is a whole number above 0, got {value!r}"  # noqa: PT018
    unit, size = spec.granularity, defaults.size
    assert size > 0 and size % unit == 0, f"defaults.size is a multiple of {unit} pixels, got {size}"  # noqa: PT018
    assert spec.max_size is None or size <= spec.max_size, f"defaults.size {size} is within max_size {spec.max_size}"
    assert not spec.downscales or spec.downscale in spec.downscales, "latent.downscale is one of latent.downscales"
    _check_components(backbone)
    _check_trained_options(backbone)
    config = getattr(backbone.trainable, "config", {})
    patch = config.get("patch_size")
    if isinstance(patch, int) and config.get("in_channels") == spec.channels:
        assert spec.patch == patch, f"latent.patch is the denoiser's patch_size, {patch}, got {spec.patch}"


def _check_components(backbone: Backbone) -> None:
    parts = backbone.components
    assert backbone.trainable in parts.values(), "components has the denoiser, beside all other models"
    assert "vae" in parts, f'components has the autoencoder under the name "vae", got {sorted(parts)}'
    held = getattr(getattr(backbone, "pipeline", None), "components", {})
    for name, part in held.items() if isinstance(held, Mapping) else ():
        missing = isinstance(part, torch.nn.Module) and all(part is not other for other in parts.values())
        assert not missing, f"components has all models of the pipeline; '{name}' is missing"


def _check_trained_options(backbone: Backbone) -> None:
    given: Any = backbone.trained_options
    assert isinstance(given, Mapping), f"trained_options is a mapping, got a {type(given).__name__}"
    known = [f.alias for f in attrs.fields(type(backbone)) if f.init and f.alias != "source"]  # type: ignore[arg-type]
    for name, value in given.items():
        assert name in known, f"trained_options names options of the backbone, got '{name}'; its options: {known}"
        assert value is None or isinstance(value, bool | int | float | str), (
            f"the values of trained_options can be kept in JSON and TOML, got {name}={value!r}"
        )
    made = attempt(
        f"the backbone with its own trained_options {dict(given)}",
        lambda: type(backbone)(**{"source": backbone.source, **given}),
    )
    assert isinstance(made, type(backbone)), "trained_options are given to the backbone that loads the trained weights"


def _check_velocity(trial: Trial) -> None:
    text = trial.text(PROMPTS)
    assert len(text[1:]) == 1, "a conditioning can be sliced"
    kept = trial.latent.clone()
    velocity = trial.velocity(text)
    shape = trial.latent.shape
    assert velocity.shape == shape, (
        f"velocity has the shape of the latent, {shape_of(trial.latent)}, got {shape_of(velocity)}"
    )
    assert torch.isfinite(velocity).all(), "a velocity is finite"
    assert torch.equal(kept, trial.latent), "velocity leaves the latent that it is given as it is"
    assert velocity.abs().max() > 0, "the velocity is zero everywhere: check a model whose last layer is not zero"
    assert torch.equal(trial.velocity(text), velocity), "velocity is deterministic: put the model into eval mode"
    alone = trial.velocity(text[1:], count=1)
    assert like(alone, velocity[1:]), "the velocity of a sample does not depend on its batch"
    other = trial.velocity(text, sigma=1 - trial.sigma)
    assert not torch.equal(other, velocity), "the velocity depends on sigma"
    again = trial.velocity(text, progress=0.5)
    assert again.shape == shape, "velocity takes progress, step / steps while sampling"
    _check_direction(trial)


def _check_direction(trial: Trial) -> None:
    """A trained model knows the noise that was added; of random weights nothing follows, and nothing is said."""
    noise, level = trial.direction(), torch.full_like(trial.sigma, 0.9)
    noisy = 0.1 * trial.latent + 0.9 * noise
    text = trial.text(PROMPTS)
    truth, told = noise - trial.latent, trial.velocity(text, noisy=noisy, sigma=level)
    cosine = float(torch.nn.functional.cosine_similarity(told.flatten(), truth.flatten(), dim=0))
    assert cosine > -0.4, f"velocity is noise - clean; it points the other way (cosine {cosine:.2f} at sigma 0.9)"
    if cosine > 0.4:
        misled = trial.velocity(text, noisy=noisy, sigma=1 - level)
        right, wrong = ((v - truth).square().mean() for v in (told, misled))
        assert right < 1.2 * wrong, "sigma is the noise level, 1 is noise: the model does better with 1 - sigma"


def _check_training(trial: Trial) -> None:
    backbone, text = trial.backbone, trial.text(PROMPTS)
    _check_gradient(trial, backbone.velocity(trial.latent, trial.sigma, text))
    with torch.autocast(trial.latent.device.type, torch.bfloat16):
        narrow = trial.velocity(text)
    assert torch.isfinite(narrow).all(), "velocity is finite with autocast to bfloat16, as training has it"
    module, calls = backbone.trainable, []

    class Wrapper(torch.nn.Module):
        def forward(self, *args: object, **kwargs: object) -> object:
            calls.append(1)
            return module(*args, **kwargs)

    backbone.trainable = Wrapper()
    try:
        trial.velocity(text)
    finally:
        backbone.trainable = module
    assert calls, "velocity goes through whatever trainable was set to"
    assert backbone.trainable is module, "trainable is what it was set to"


def _check_gradient(trial: Trial, velocity: Tensor) -> None:
    module = trial.backbone.trainable
    assert velocity.requires_grad, "the trainable module receives a gradient"
    attempt("the backward pass of velocity", lambda: torch.autograd.backward(velocity.float().square().mean()))
    reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    module.zero_grad(set_to_none=True)
    assert reached, "the trainable module receives a gradient"
