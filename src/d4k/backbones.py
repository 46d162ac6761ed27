"""What backbone plugins share: options, pipelines, text length, sizes, the exact autoencoder and schedulers.

Functions and one small object that a backbone holds. There is no base class: what a backbone does not need, because its
model is another, it leaves out.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from d4k.autoencoder import Posterior, decode, encode, posterior
from d4k.config import flag, number, one_of, optional, text, whole
from d4k.errors import ConfigError, first_line
from d4k.flow import resolution_shift
from d4k.models import computing_device, computing_dtype, load_pipeline, resident, save_pipeline
from d4k.protocols import LatentSpec

__all__ = [
    "ExactAutoencoder",
    "computing_device",
    "computing_dtype",
    "flag",
    "flow_scheduler",
    "freeze",
    "load_pipeline",
    "modules",
    "number",
    "one_of",
    "optional",
    "resident",
    "save_pipeline",
    "text",
    "text_length",
    "trained_patches",
    "whole",
]

PLAIN = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
SOLVERS = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")
ALLOWED = (
    f"Allowed in scheduler/scheduler_config.json: {', '.join(PLAIN)}, and, with use_flow_sigmas and "
    f"prediction_type 'flow_prediction', {', '.join(SOLVERS)}"
)


def modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The models of a diffusers pipeline by the names it gives them: `transformer`, `vae`, `text_encoder` and so on.

    Args:
        pipeline: loaded; parts that are missing, and tokenizers, are left out.
    """
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def freeze(pipeline: Any, *, but: str = "transformer") -> None:
    """Switch gradients off for all models of a diffusers pipeline but one.

    Args:
        pipeline: loaded.
        but: the name of the model that may be trained.
    """
    for name, part in modules(pipeline).items():
        if name != but:
            part.requires_grad_(False)


def text_length(asked: int | None, tokenizer: Any, usual: int) -> int:
    """The number of tokens that prompts are padded to, or cut at.

    Args:
        asked: the backbone option `text_tokens`; None is `usual`, as far as the tokenizer goes.
        tokenizer: of transformers, which says what it takes; None, where a model has none, takes `usual`.
        usual: what the model's own pipeline takes.

    Raises:
        ConfigError: the tokenizer takes fewer tokens than were asked for.
    """
    limit = usual if tokenizer is None else int(tokenizer.model_max_length)
    if asked is not None and asked > limit:
        raise ConfigError(f"text_tokens is {asked}, but the tokenizer of this model takes at most {limit}")
    return asked or min(usual, limit)


def trained_patches(trained_size: int | None, latent: LatentSpec, rows: int) -> int:
    """The number of tokens a side of the square pictures that a model was trained on.

    Args:
        trained_size: the backbone option of that name, in pixels; None is what the checkpoint says.
        latent: of the loaded model.
        rows: latent rows of those pictures, as the checkpoint says. They stay the same when `latent.downscale` is
            doubled, and stand for twice the pixels.

    Raises:
        ConfigError: `trained_size` is less than one token.
    """
    if trained_size is None:
        return rows // latent.patch
    if trained_size < latent.granularity:
        raise ConfigError(f"trained_size is {trained_size}, but a token of this model is {latent.granularity} pixels")
    return trained_size // latent.granularity


@frozen(eq=False)
class ExactAutoencoder:
    """An `AutoencoderKL` of a pipeline, run band by band on its computing device, also where it is offloaded.

    Args:
        vae: a diffusers `AutoencoderKL`.
        downscale: pixels a latent row stands for: the autoencoder's own, or twice that.
        memory_gb: what it may use beside its weights, in 10^9 bytes: `Placement.memory_gb`; None measures what is free.
    """

    vae: Any
    downscale: int
    memory_gb: float | None = None

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w); see `d4k.autoencoder.encode`."""
        with resident(self.vae):
            return encode(self.vae, pixels, downscale=self.downscale, memory_gb=self.memory_gb)

    def posterior(self, pixels: Tensor) -> Posterior:
        """Pixels (B, 3, H, W) in [-1, 1] to a distribution of latents; see `d4k.autoencoder.posterior`."""
        with resident(self.vae):
            return posterior(self.vae, pixels, downscale=self.downscale, memory_gb=self.memory_gb)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C, h, w) to pixels (B, 3, H, W), about in [-1, 1]; see `d4k.autoencoder.decode`."""
        with resident(self.vae):
            return decode(self.vae, latent, downscale=self.downscale, memory_gb=self.memory_gb)


def flow_scheduler(
    like: Any,
    steps: int,
    tokens: int,
    *,
    shift: float | None = None,
    sigmas: Sequence[float] | None = None,
    max_shift: float = 1.15,
) -> Any:
    """A fresh scheduler of the class and configuration that a checkpoint names, its timesteps set.

    Args:
        like: the scheduler of the loaded pipeline, which is not changed.
        steps: that are asked for. A solver may ask the model more often: Heun's does 2 * steps - 1 times.
        tokens: of the picture, which the configuration may shift noise levels by.
        shift: of the noise levels; None is what the configuration says.
        sigmas: noise levels before they are shifted, one a step, where the model's own pipeline does not leave them to
            the scheduler. Heun's and the multistep solvers have a spacing of their own.
        max_shift: see `d4k.flow.resolution_shift`.

    Returns:
        A diffusers scheduler. Its values lie on the CPU, wherever the model computes.

    Raises:
        ConfigError: the scheduler is none of flow matching, draws noise of its own, or makes no schedule that ends in
            a picture; the message says which are allowed.
    """
    _check_solver(like)
    scheduler, mu = _shifted(like, tokens, shift, max_shift)
    arguments: dict[str, Any] = {"num_inference_steps": steps}
    if sigmas is not None and "sigmas" in inspect.signature(scheduler.set_timesteps).parameters and _is_plain(like):
        arguments = {"sigmas": list(sigmas)}
    if mu is not None:
        arguments["mu"] = mu
    try:
        with warnings.catch_warnings():  # diffusers hands tensors to NumPy in a way that NumPy 2 deprecates
            warnings.simplefilter("ignore")
            scheduler.set_timesteps(**arguments)
    except (ValueError, ArithmeticError) as error:
        name = type(like).__name__
        raise ConfigError(f"{name} cannot make {steps} steps of its configuration: {first_line(error)}") from error
    _check_schedule(scheduler, steps)
    return scheduler


def _is_plain(like: Any) -> bool:
    return any(base.__name__ in PLAIN for base in type(like).__mro__)


def _check_solver(like: Any) -> None:
    """Refuse a scheduler that is no deterministic solver of flow matching."""
    config, reason = like.config, ""
    if not any(base.__name__ in (*PLAIN, *SOLVERS) for base in type(like).__mro__):
        reason = "is no solver that d4k can step with"
    elif config.get("stochastic_sampling") or str(config.get("algorithm_type", "")).startswith("sde"):
        reason = "draws noise of its own at every step, so that a picture would not follow from its seed"
    elif not _is_plain(like) and not (
        config.get("use_flow_sigmas") and config.get("prediction_type") == "flow_prediction"
    ):
        reason = "is not configured for flow matching"
    if reason:
        raise ConfigError(f"the model's scheduler, {type(like).__name__}, {reason}. {ALLOWED}")


def _shifted(like: Any, tokens: int, shift: float | None, max_shift: float) -> tuple[Any, float | None]:
    """A scheduler of the same class with the shift in its configuration, or else the `mu` to set its timesteps with."""
    config: Mapping[str, Any] = like.config
    name, mu = ("shift" if _is_plain(like) else "flow_shift"), None
    if shift is None and config.get("use_dynamic_shifting"):
        mu = resolution_shift(config, tokens, max_shift=max_shift)
        if (
            name == "flow_shift"
        ):  # of the solvers not each takes `mu`, and none another than exponential; it is the same
            shift, mu = (math.exp(mu) if config.get("time_shift_type") == "exponential" else mu), None
    chosen = {} if shift is None else {name: shift, "use_dynamic_shifting": False}
    return type(like).from_config(config, **{key: value for key, value in chosen.items() if key in config}), mu


def _check_schedule(scheduler: Any, steps: int) -> None:
    """Refuse noise levels that do not fall to 0, or that are not what the model is asked at."""
    label = f"the configuration of the model's scheduler, {type(scheduler).__name__},"
    levels = scheduler.sigmas.double().cpu()
    asked = scheduler.timesteps.double().cpu() / 1000
    falls = bool((levels.diff() <= 0).all()) and 0 < float(levels[0]) <= 1 and len(asked) == len(levels) - 1
    if not falls or float((levels[:-1] - asked).abs().max()) > 1e-3:
        raise ConfigError(
            f"{label} makes no noise levels that fall from 1 to 0 in {steps} step{'s' * (steps > 1)}, each a "
            f"thousandth of its timestep. {ALLOWED}; leave its other keys out"
        )
    if float(levels[-1]) != 0:
        raise ConfigError(
            f"{label} ends at noise level {float(levels[-1]):.3g}, so that pictures would stay noisy: "
            "set final_sigmas_type to 'zero'"
        )
