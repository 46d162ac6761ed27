"""The facade: loads a model and generates, trains, evaluates and saves with whatever is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL.Image import Image

from d4k import checkpoint, memory, sampling, training
from d4k.config import (
    Component,
    DataSettings,
    FlowSettings,
    OptimizerSettings,
    RunConfig,
    TrainingSettings,
    from_mapping,
)
from d4k.errors import ConfigError, OutputError, UnknownNameError, did_you_mean
from d4k.evaluation import evaluate
from d4k.files import atomic_folder, empty_folder
from d4k.images import to_picture
from d4k.plugins import create, registry
from d4k.protocols import Backbone, Dataset, Loss, Metric, Placement, Score
from d4k.registry import Kind

__all__ = ["Pipeline", "choose_device", "metrics_by_name", "train_from_config"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SECTIONS = {
    "data": DataSettings,
    "flow": FlowSettings,
    "optimizer": OptimizerSettings,
    "training": TrainingSettings,
}


class Pipeline:
    """A loaded model. Make one with `Pipeline.from_pretrained`.

    Attributes:
        model: as it was asked for.
        backbone: what does the work.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        model: str,
        name: str,
        options: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
        offload: str | None = None,
    ) -> None:
        self.backbone, self.model, self._name, self._options = backbone, model, name, dict(options)
        self._facts, self._offload = dict(facts or {}), offload

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        variant: str | None = None,
        transformer: str | Path | None = None,
        offload: str | None = None,
        quantize: str | None = None,
        attention: str | None = None,
        compile: bool = False,  # noqa: A002
        cache: str | None = None,
        memory_gb: float | None = None,
        **options: Any,
    ) -> Pipeline:
        """Load a model. What holds less in memory, or computes faster, is described in `docs/memory.md`.

        Args:
            model: a registered checkpoint (`d4k plugins` lists them), a local folder in the diffusers layout, the
                folder of a run or of a checkpoint in it, or a Hub id. The backbone is detected from
                `model_index.json`.
            device: such as "cuda", "cuda:1", "mps" or "cpu"; None takes the first of CUDA, MPS and CPU there is.
            dtype: of the weights: "float32", "bfloat16" or "float16".
            revision: of a Hub id: branch, tag or commit.
            variant: of the weight files, such as "fp16".
            transformer: another denoiser for the model: a single file in the names of diffusers or of the original
                release, a folder, a checkpoint of a run, or a Hub id.
            offload: where weights rest until they are computed with: "model" (whole parts in CPU memory), "group"
                (layer by layer in CPU memory) or "disk" (layer by layer in temporary files).
            quantize: hold the denoiser's weights as "int8", "float8" (torchao) or "nf4" (bitsandbytes).
            attention: a diffusers attention back-end, such as "native", "flash" or "sage".
            compile: compile the denoiser's repeated blocks with `torch.compile`.
            cache: "first-block", or with a threshold "first-block:0.1": skip what hardly changes between steps.
            memory_gb: what the autoencoder may use beside its weights; None measures what is free.
            options: of the backbone.

        Raises:
            UnknownNameError: there is no such model, dtype, offload, quantisation, back-end or cache.
            CheckpointError: the model cannot be read, or its weights do not fit its configuration.
            ConfigError: the backbone has no such option, or this machine cannot do what is asked.
        """
        replaced = None if transformer is None else str(transformer)
        source = checkpoint.find_model(str(model), revision=revision, variant=variant, transformer=replaced)
        if dtype not in DTYPES:
            raise UnknownNameError("dtype", dtype, DTYPES)
        merged = {**source.options, **options}
        backbone = create("backbone", source.backbone, source=source.location, **merged)
        placement = Placement(
            choose_device(device),
            DTYPES[dtype],
            source.revision,
            source.variant,
            source.transformer,
            offload,
            quantize,
            memory_gb,
        )
        memory.check_placement(placement)
        backbone.load(placement)
        memory.speed_up(backbone.trainable, attention=attention, compiled=compile, cache=cache)
        facts = {
            "dtype": dtype,
            "revision": revision,
            "variant": variant,
            "transformer": replaced,
            "quantize": quantize,
            "attention": attention,
            "compile": compile or None,
            "cache": cache,
        }
        facts = {key: value for key, value in facts.items() if value is not None}
        return cls(backbone, model=str(model), name=source.backbone, options=merged, facts=facts, offload=offload)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        shift: float | None = None,
        seed: int | Sequence[int] = 0,
        negative_prompt: str = "",
        batch_size: int = 1,
        on_step: Callable[[sampling.SamplingStep], None] | None = None,
    ) -> list[Image]:
        """Draw one picture for each prompt.

        Args:
            prompt: one or several.
            width: pixels; None is the size the model was trained at.
            height: likewise.
            steps: Euler steps; None is what the checkpoint says, or else the backbone's preset for this size.
            guidance: scale; None as for `steps`.
            shift: of the noise levels; None as for `steps`, or else what the checkpoint's scheduler says.
            seed: of every picture, or one for each; with one prompt, several seeds draw several pictures. A picture
                depends on its own seed only, not on its place or the batch size.
            negative_prompt: what classifier-free guidance steers away from.
            batch_size: pictures at a time.
            on_step: called after every step; see `d4k.sampling.SamplingStep`.

        Returns:
            RGB pictures; `picture.info["d4k"]` holds the recipe as a dict, with what `from_pretrained` was given as far
            as pixels depend on it.

        Raises:
            ConfigError: a value does not suit the backbone.
        """
        prompts, seeds = _pairs(prompt, seed)
        recipe = {
            "model": self.model,
            **self._settings(width, height, steps, guidance, shift),
            "negative_prompt": negative_prompt,
        }
        _check_positive(steps=recipe["steps"], batch_size=batch_size)
        if "cache" in self._facts and batch_size > 1:
            raise ConfigError("a step cache judges a batch as one picture: with cache, batch_size must be 1")
        settings = {key: value for key, value in recipe.items() if key != "model"}
        drawn = sampling.sample(self.backbone, prompts, seeds, batch_size=batch_size, on_step=on_step, **settings)
        pictures = []
        for tensor, text, number in zip(drawn, prompts, seeds, strict=True):
            picture = to_picture(tensor)
            made = {**recipe, "options": self._options, **self._facts}
            picture.info["d4k"] = {"prompt": text, "seed": number, **made}
            pictures.append(picture)
        return pictures

    def _settings(
        self, width: int | None, height: int | None, steps: int | None, guidance: float | None, shift: float | None
    ) -> dict[str, Any]:
        """Size and sampling settings: as given, or else what the checkpoint says, or else the backbone's preset."""
        defaults = self.backbone.defaults
        width, height = (defaults.size if side is None else side for side in (width, height))
        preset = registry().preset(self._name, max(1, width), max(1, height))
        chosen: dict[str, Any] = {"width": width, "height": height}
        for name, given in (("steps", steps), ("guidance", guidance), ("shift", shift)):
            value = getattr(defaults, name, None) if given is None else given
            chosen[name] = getattr(preset, name, None) if value is None else value
            if chosen[name] is None and name != "shift":
                raise ConfigError(f"backbone '{self._name}' has no preset for {name}: give {name}")
        return chosen

    def train(
        self,
        *,
        dataset: str | Dataset,
        output_dir: str | Path,
        loss: str | Loss = "wavelet",
        steps: int = 1000,
        dataset_options: Mapping[str, Any] | None = None,
        loss_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        resume: bool = False,
        on_step: Callable[[int, float], None] | None = None,
        **settings: Any,
    ) -> training.Run:
        """Fine-tune the model in place.

        Args:
            dataset: registered name, or any `d4k.Dataset`.
            output_dir: a folder that does not exist or is empty.
            loss: registered name, or any `d4k.Loss`.
            steps: optimizer steps.
            dataset_options: of a dataset given by name.
            loss_options: of a loss given by name.
            seed: of crops, noise and noise levels.
            resume: go on from the newest checkpoint in `output_dir`.
            on_step: called with each step and its loss.
            settings: any key of the sections data, flow, optimizer and training of the TOML file, such as `lr=1e-5`,
                `width=4096`, `batch_size=4`; `schedule="cosine"` names the learning-rate schedule.

        Returns:
            The finished run.

        Raises:
            ConfigError: a setting is unknown or out of range.
            OutputError: `output_dir` is not empty, or cannot be written.
            DataError: a picture cannot be used.
        """
        data: dict[str, Any] = {
            "model": self.model,
            "output_dir": str(output_dir),
            "seed": seed,
            **{key: self._facts[key] for key in ("revision", "variant", "transformer") if key in self._facts},
            "backbone": self._options,
            "dataset": _component(dataset, dataset_options),
            "loss": _component(loss, loss_options),
            **_sections({"steps": steps, **settings}),
        }
        return self.run(from_mapping(RunConfig, data), dataset=dataset, loss=loss, resume=resume, on_step=on_step)

    def run(
        self,
        config: RunConfig,
        *,
        dataset: str | Dataset | None = None,
        loss: str | Loss | None = None,
        resume: bool = False,
        on_step: Callable[[int, float], None] | None = None,
    ) -> training.Run:
        """Fine-tune as a configuration says; `dataset` and `loss` replace what it names when they are objects."""
        self._refuse("fine-tune", "offload", "quantize", "cache")
        chosen = _given("dataset", dataset, config.dataset)
        objective = _given("loss", loss, config.loss)
        card = (self._name, self._options)
        return training.train(self.backbone, chosen, objective, config, resume=resume, card=card, on_step=on_step)

    def evaluate(
        self,
        images: str | Path | Sequence[str | Path],
        metrics: Sequence[str] | Mapping[str, Metric],
        *,
        prompts: Sequence[str] | None = None,
        reference: str | Path | None = None,
    ) -> list[Score]:
        """Measure images; see `d4k.evaluation.evaluate`.

        Args:
            images: a folder, or files.
            metrics: registered names, or name -> metric.
            prompts: one an image.
            reference: folder with one reference picture for each image.
        """
        files = Path(images) if isinstance(images, str | Path) else [Path(image) for image in images]
        chosen = metrics if isinstance(metrics, Mapping) else metrics_by_name(metrics)
        return evaluate(files, chosen, prompts=prompts, reference=None if reference is None else Path(reference))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model in the diffusers layout; diffusers' own `from_pretrained` loads it.

        Raises:
            OutputError: the folder exists and is not empty, or cannot be written.
        """
        self._refuse("save", "offload", "quantize")
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{target} exists and is not empty; name another folder")
        with atomic_folder(target) as temporary:
            self.backbone.save(temporary)
            checkpoint.write_card(temporary, self._name, self._options)

    def _refuse(self, what: str, *settings: str) -> None:
        known = self._facts if self._offload is None else {**self._facts, "offload": self._offload}
        for setting in settings:
            if setting in known:
                raise ConfigError(
                    f"cannot {what} a model loaded with {setting}={known[setting]!r}: load it without {setting}"
                )


def choose_device(name: str | None = None) -> torch.device:
    """The named device, or the first of CUDA, MPS and CPU there is.

    Raises:
        ConfigError: there is no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{name}' is not available here; try 'cuda', 'mps' or 'cpu'") from error
    return device


def train_from_config(
    config: RunConfig, *, device: str | None = None, memory_gb: float | None = None, resume: bool = False
) -> training.Run:
    """Load what a configuration names and fine-tune it; a mistake in dataset or loss shows before the model is read."""
    if not resume:
        empty_folder(Path(config.output_dir))
    dataset, loss = _given("dataset", None, config.dataset), _given("loss", None, config.loss)
    pipe = Pipeline.from_pretrained(
        config.model,
        device=device,
        revision=config.revision,
        variant=config.variant,
        transformer=config.transformer,
        memory_gb=memory_gb,
        **config.backbone,
    )
    return pipe.run(config, dataset=dataset, loss=loss, resume=resume)


def metrics_by_name(names: Sequence[str]) -> dict[str, Metric]:
    """Registered metrics with their default options, by name."""
    return {name: create("metric", name) for name in names}


def _pairs(prompt: str | Sequence[str], seed: int | Sequence[int]) -> tuple[list[str], list[int]]:
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    if not prompts:
        raise ConfigError("no prompt was given")
    if len(prompts) == 1:
        prompts *= len(seeds)
    if len(prompts) != len(seeds):
        raise ConfigError(f"{len(prompts)} prompts, but {len(seeds)} seeds: give one seed, or one for each prompt")
    if any(not 0 <= number < 2**63 for number in seeds):
        raise ConfigError(f"seed must be between 0 and 2**63 - 1, got {seeds}")
    return prompts, seeds


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")


def _component(given: object, options: Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(given, str):
        return {"name": given, "options": dict(options or {})}
    if options:
        raise ConfigError(f"options were given beside an object ({type(given).__name__}); set them on the object")
    return {"name": type(given).__name__}


def _given(kind: Kind, component: Any, settings: Component) -> Any:
    """The object that was given, or else the registered component that the settings name."""
    if component is None or isinstance(component, str):
        return create(kind, settings.name, **settings.options)
    return component


def _sections(settings: Mapping[str, Any]) -> dict[str, Any]:
    homes = {f.name: section for section, cls in SECTIONS.items() for f in attrs.fields(cls) if f.name != "name"}
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if key in ("schedule", "warmup_steps"):
            result.setdefault("schedule", {})["name" if key == "schedule" else key] = value
        elif key == "optimizer":
            result.setdefault("optimizer", {})["name"] = value
        elif key in homes:
            result.setdefault(homes[key], {})[key] = value
        else:
            known = sorted([*homes, "schedule", "warmup_steps", "optimizer"])
            raise ConfigError(f"unknown setting '{key}'{did_you_mean(key, known)} Known: {', '.join(known)}.")
    return result
