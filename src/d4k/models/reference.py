"""Which model, and what is known of it: one frozen value each, and the one rule of precedence.

An option of the backbone, or a setting of sampling, may be said in five places. The first that says it counts:

1. given: on the command line, as a keyword, in a recipe or a run's TOML;
2. the model's own record: the `d4k.json` beside its weights, or the configuration of the run that trained them;
3. the record of an adapter that is switched on, the first one first;
4. registered: what a plugin says of a model that it gives a short name to;
5. the backbone's preset for the size.

Where none says it, the backbone's own default holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field, frozen

from d4k.errors import ConfigError

__all__ = ["AppliedAdapter", "LoadedModel", "Loading", "Model", "ModelRef", "Training", "first_said", "split_settings"]


def first_said(*levels: Mapping[str, Any]) -> dict[str, Any]:
    """The rule of precedence: for each name the value of the first level that has one; None says nothing.

    >>> first_said({"steps": None}, {"steps": 28, "shift": 3.0}, {"steps": 50})
    {'steps': 28, 'shift': 3.0}
    """
    return {name: value for level in reversed(levels) for name, value in level.items() if value is not None}


@frozen
class ModelRef:
    """Which model, as a user names it; nothing is looked up yet.

    Args:
        name: a registered checkpoint, a folder (in the diffusers layout, of a run, of a checkpoint in it), or a Hub id.
        revision: of a Hub id: branch, tag or commit.
        variant: of the weight files, such as "fp16".
        transformer: a file, a folder or a Hub id whose denoiser replaces that of the model.
        adapters: source -> scale: adapters (LoRA) to switch on beside those that the model has.
        options: of the backbone.
    """

    name: str = field(converter=str)
    revision: str | None = None
    variant: str | None = None
    transformer: str | None = field(default=None, converter=attrs.converters.optional(str))
    adapters: Mapping[str, float] = field(factory=dict)
    options: Mapping[str, Any] = field(factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """What beside the name decides which files are read: revision, variant and transformer, where given."""
        return first_said({"revision": self.revision, "variant": self.variant, "transformer": self.transformer})


@frozen
class Training:
    """What is known of how a model or an adapter was trained; None and absent mean that nothing is.

    Args:
        width: pixels of the pictures it saw.
        height: likewise.
        guidance: the scale that was an input of the denoiser.
        shift: of the noise levels.
        options: what `Backbone.trained_options` said.
        ema: decay of the moving average that the weights are; None where they are as the last step left them.
    """

    width: int | None = None
    height: int | None = None
    guidance: float | None = None
    shift: float | None = None
    options: Mapping[str, Any] = field(factory=dict)
    ema: float | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """What it says of sampling: width, height, guidance and shift, where they are known."""
        return first_said(attrs.asdict(self, filter=lambda a, _: a.name not in ("options", "ema")))

    def over(self, other: Training) -> Training:
        """This record, and what `other` says where this one says nothing."""
        options = first_said(self.options, other.options)
        return Training(**first_said(self.sampling, other.sampling), options=options, ema=self.ema)


@frozen
class Model:
    """A model that was found, with the rule of precedence applied: what loading, planning and sampling go by.

    Args:
        ref: as it was asked for.
        backbone: registered name.
        location: folder or Hub id.
        options: of the backbone, all that are said.
        training: what its weights, or else its adapters, were trained with.
        registered: what its authors sample with, see `d4k.plugins.RegisterCheckpoint`.
        adapters: source -> scale: adapters that belong to it, and those that were asked for.
        revision: of a Hub id.
        variant: of the weight files.
        transformer: file, folder or Hub id of a denoiser that replaces the model's own.
        configs: a folder with its configuration files alone, where a plugin brings them.
    """

    ref: ModelRef
    backbone: str
    location: str
    options: Mapping[str, Any] = field(factory=dict)
    training: Training = Training()
    registered: Mapping[str, Any] = field(factory=dict)
    adapters: Mapping[str, float] = field(factory=dict)
    revision: str | None = None
    variant: str | None = None
    transformer: str | None = None
    configs: str = ""


@frozen
class Loading:
    """How a model is loaded; `docs/memory.md` says what each choice costs.

    Args:
        device: such as "cuda", "cuda:1", "mps" or "cpu"; None takes the first of CUDA, MPS and CPU there is.
        dtype: of the weights: "float32", "bfloat16" or "float16".
        offload: where weights rest until they are computed with: "model" (whole parts in CPU memory), "group" (layer by
            layer in CPU memory) or "disk" (layer by layer in temporary files).
        quantize: hold the denoiser's weights as "int8", "float8" (torchao) or "nf4" (bitsandbytes).
        attention: a diffusers attention back-end, such as "native", "flash" or "sage".
        compile: compile the denoiser's repeated blocks with `torch.compile`.
        step_cache: "first-block", or with a threshold "first-block:0.1": skip what hardly changes between steps.
        memory_gb: gigabytes that the autoencoder may use beside its weights; None measures what is free.
    """

    device: str | None = None
    dtype: str = "float32"
    offload: str | None = None
    quantize: str | None = None
    attention: str | None = None
    compile: bool = False
    step_cache: str | None = None
    memory_gb: float | None = None

    @property
    def recorded(self) -> dict[str, Any]:
        """What pixels depend on, as a recipe records it."""
        kept = attrs.asdict(self, filter=lambda a, _: a.name not in ("offload", "memory_gb"))
        return {name: value for name, value in kept.items() if value not in (None, False)}


def split_settings(settings: Mapping[str, Any]) -> tuple[Loading, dict[str, Any]]:
    """The keywords of `Pipeline.from_pretrained`: how to load, and the options of the backbone."""
    names = {f.name for f in attrs.fields(Loading)}
    how = {name: value for name, value in settings.items() if name in names}
    return Loading(**how), {name: value for name, value in settings.items() if name not in names}


@frozen
class AppliedAdapter:
    """An adapter that a loaded model has, as a recipe records it.

    Args:
        name: in the model.
        source: where it was read from.
        sha256: of its file, in hexadecimal.
        scale: its updates count this many times; 0 is off.
    """

    name: str
    source: str
    sha256: str
    scale: float = 1.0


@frozen
class LoadedModel:
    """A model in memory: which one it is, how it was loaded, and the adapters that it has.

    Args:
        model: as it was found, with what has been learnt since.
        loading: how it was loaded; the device by its kind.
        weights: what its weights are now: as it was loaded, or the run that trained them.
        adapters: by name, switched on or not.
        merged: adapters that became part of its own weights.
    """

    model: Model
    loading: Loading
    weights: ModelRef
    adapters: Mapping[str, AppliedAdapter] = field(factory=dict)
    merged: tuple[AppliedAdapter, ...] = ()

    def refuse(self, what: str, *settings: str) -> None:
        """Refuse to do what cannot be done with a model that was loaded with one of these settings.

        Raises:
            ConfigError: it was; the message names the setting.
        """
        for name in settings:
            value = getattr(self.loading, name)
            if value is not None:
                raise ConfigError(f"cannot {what} a model loaded with {name}={value!r}: load it without {name}")

    def recipe(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All that makes a picture what it is, but for the versions of the packages."""
        used = [attrs.asdict(adapter) for adapter in (*self.merged, *self.adapters.values())]
        fixed = {"options": dict(self.model.options), **self.weights.files, **self.loading.recorded}
        told = {"prompt": prompt, "seed": seed, "model": self.weights.name, **settings, **fixed}
        return {**told, "adapters": used} if used else told
