"""The hooks a plugin may implement. Each takes one callback and registers names with it; nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pluggy

from d4k.protocols import Preset

__all__ = ["API_VERSION", "Register", "RegisterCheckpoint", "hookimpl"]

API_VERSION = 1
"""A plugin module may set `D4K_API = 1`; another number than this one is refused."""

hookspec = pluggy.HookspecMarker("d4k")
hookimpl = pluggy.HookimplMarker("d4k")


class Register(Protocol):
    """`register("wavelet", "d4k_wavelet.loss:WaveletLoss", summary="one line")`."""

    def __call__(
        self,
        name: str,
        target: str,
        *,
        summary: str,
        pipelines: tuple[str, ...] = (),
        presets: tuple[Preset, ...] = (),
    ) -> None:
        """Claim `name` for the attrs class at `target` ("module:attribute").

        A backbone also says which `_class_name`s of a `model_index.json` it loads, in `pipelines`, and what it samples
        with at which size, in `presets`.
        """


class RegisterCheckpoint(Protocol):
    """`register("tiny-sd3", backbone="sd3", source="/a/folder/or/hub-id", summary="one line")`."""

    def __call__(
        self,
        name: str,
        *,
        backbone: str,
        source: str,
        summary: str,
        options: Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
        configs: str = "",
    ) -> None:
        """Claim `name` for a model: a registered backbone, where its weights are, and its options of the backbone.

        `sampling` says with what its authors sample, where its files do not say it: any of `width`, `height`, `steps`,
        `guidance` and `shift`, which may be "scheduler" for the shift of the model's own scheduler; and for stages that
        begin with a smaller picture `restart`, `alignment`, `cutoff` and `upscaler`.
        Where `source` is a Hub id, `configs` may name a folder with the model's configuration files alone, in the
        diffusers layout, so that `d4k plan` needs no network.
        """


@hookspec
def register_backbones(register: Register) -> None:
    """Register diffusion models that satisfy `d4k.Backbone`."""


@hookspec
def register_losses(register: Register) -> None:
    """Register training objectives that satisfy `d4k.Loss`."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register sources of captioned pictures that satisfy `d4k.Dataset`."""


@hookspec
def register_metrics(register: Register) -> None:
    """Register measurements of images that satisfy `d4k.Metric`."""


@hookspec
def register_upscalers(register: Register) -> None:
    """Register what enlarges finished pictures and satisfies `d4k.Upscaler`."""


@hookspec
def register_filters(register: Register) -> None:
    """Register what decides which photographs belong into a dataset, and satisfies `d4k.Filter`."""


@hookspec
def register_captioners(register: Register) -> None:
    """Register what describes pictures in words and satisfies `d4k.Captioner`."""


@hookspec
def register_checkpoints(register: RegisterCheckpoint) -> None:
    """Register short names for models: a backbone and a local folder or Hub id."""
