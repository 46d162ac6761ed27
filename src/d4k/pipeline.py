"""The facade: loads a model and generates, trains, evaluates and saves with whatever is registered."""

from __future__ import annotations

import inspect
import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from PIL.Image import Image

from d4k.adapters import (
    TRAINED,
    Adapter,
    Applied,
    check_scales,
    load_adapter,
    loaded_adapters,
    merge_adapters,
    read_adapter,
    scaled_adapters,
    set_adapters,
)
from d4k.config import (
    AdapterSettings,
    Component,
    DataSettings,
    FlowSettings,
    OptimizerSettings,
    RunConfig,
    TrainingSettings,
    from_mapping,
    read_toml,
)
from d4k.errors import ConfigError, UnknownNameError, did_you_mean
from d4k.evaluation import evaluate
from d4k.files import atomic_folder, refuse_used
from d4k.images import to_picture
from d4k.machine import choose_device
from d4k.models import DTYPES, LOADED_WITH, check_placement, find_model, speed_up, write_card
from d4k.plugins import Kind, create, registry
from d4k.protocols import Backbone, Dataset, Loss, Metric, Placement, Score
from d4k.sampling import Job, SamplingStep, choose_settings, deviations, fill_jobs, generate_into, sample, versions
from d4k.training import Run, train, trained_with

__all__ = ["Pipeline", "check_options", "metrics_by_name", "train_from_config"]

SECTIONS = {
    "data": DataSettings,
    "flow": FlowSettings,
    "optimizer": OptimizerSettings,
    "training": TrainingSettings,
}
ADAPTER = {f"adapter_{f.name}": f.name for f in attrs.fields(AdapterSettings)}
DISK = "offload='disk' cannot hold adapters: merge them first (d4k adapter merge), and load the merged model"
DRAWN = ("seed", "width", "height", "steps", "guidance", "shift", "negative_prompt")


class Pipeline:
    """A loaded model. Make one with `Pipeline.from_pretrained`.

    Attributes:
        model: as it was asked for.
        backbone: what does the work.
        adapters: low-rank adapters that are loaded, by name.
        merged: those that became part of the model's own weights.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        model: str,
        name: str,
        options: Mapping[str, Any],
        training: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        offload: str | None = None,
    ) -> None:
        self.backbone, self.model, self._name, self._options = backbone, model, name, dict(options)
        self.adapters: dict[str, Applied] = {}
        self.merged: tuple[Applied, ...] = ()
        self._training, self._facts = dict(training or {}), dict(facts or {})
        self._weights, self._warned, self._offload = model, False, offload
        self._loaded = {"model": model, **_loaded_with(self._facts)}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: str = "float32",
        adapters: Sequence[str | Path] | Mapping[str | Path, float] = (),
        revision: str | None = None,
        variant: str | None = None,
        transformer: str | Path | None = None,
        offload: str | None = None,
        quantize: str | None = None,
        attention: str | None = None,
        compile: bool = False,  # noqa: A002
        step_cache: str | None = None,
        memory_gb: float | None = None,
        **options: Any,
    ) -> Pipeline:
        """Load a model. What holds less in memory, or computes faster, is described in `docs/md`.

        Args:
            model: a registered checkpoint (`d4k plugins` lists them), a local folder in the diffusers layout, the
                folder of a run or of a checkpoint in it, or a Hub id. The backbone is detected from
                `model_index.json`.
            device: such as "cuda", "cuda:1", "mps" or "cpu"; None takes the first of CUDA, MPS and CPU there is.
            dtype: of the weights: "float32", "bfloat16" or "float16".
            adapters: low-rank adapters to switch on, see `load_adapter`; with their weights where they are not 1.
            revision: of a Hub id: branch, tag or commit.
            variant: of the weight files, such as "fp16".
            transformer: another denoiser for the model: a single file in the names of diffusers or of the original
                release, a folder, a checkpoint of a run, or a Hub id.
            offload: where weights rest until they are computed with: "model" (whole parts in CPU memory), "group"
                (layer by layer in CPU memory) or "disk" (layer by layer in temporary files).
            quantize: hold the denoiser's weights as "int8", "float8" (torchao) or "nf4" (bitsandbytes).
            attention: a diffusers attention back-end, such as "native", "flash" or "sage".
            compile: compile the denoiser's repeated blocks with `torch.compile`.
            step_cache: "first-block", or with a threshold "first-block:0.1": skip what hardly changes between steps.
            memory_gb: what the autoencoder may use beside its weights; None measures what is free.
            options: of the backbone.

        Raises:
            UnknownNameError: there is no such model, dtype, offload, quantisation, back-end or step cache.
            CheckpointError: the model or an adapter cannot be read, or does not fit.
            ConfigError: the backbone has no such option, or this machine cannot do what is asked.
        """
        replaced = None if transformer is None else str(transformer)
        source = find_model(str(model), revision=revision, variant=variant, transformer=replaced)
        if dtype not in DTYPES:
            raise UnknownNameError("dtype", dtype, DTYPES)
        if offload == "disk" and (source.adapters or adapters):
            raise ConfigError(DISK)
        wanted = [(read_adapter(name), weight) for name, weight in scaled_adapters(source.adapters, adapters).items()]
        learnt = _learnt(wanted, source.training)
        implementation = registry().get("backbone", source.backbone).load()
        merged = {**source.options, **_as_options(implementation, learnt), **options}
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
        check_placement(placement)
        backbone.load(placement)
        facts = {
            "dtype": dtype,
            "device": placement.device.type,
            "revision": revision,
            "variant": variant,
            "transformer": replaced,
            "quantize": quantize,
            "attention": attention,
            "compile": compile or None,
            "step_cache": step_cache,
        }
        pipe = cls(
            backbone,
            model=str(model),
            name=source.backbone,
            options=merged,
            training=source.training,
            facts={key: value for key, value in facts.items() if value is not None},
            offload=offload,
        )
        for adapter, weight in wanted:
            pipe._apply(adapter, weight)
        speed_up(backbone.trainable, attention=attention, compiled=compile, step_cache=step_cache)
        return pipe

    def load_adapter(self, source: str | Path, weight: float = 1.0, name: str | None = None) -> str:
        """Switch on a low-rank adapter (LoRA), beside those that are on.

        Args:
            source: a safetensors file, the folder of one or of a run, or a Hub id such as owner/name.
            weight: what its updates count.
            name: to call it by; None names it after its file or folder.

        Returns:
            The name.

        Raises:
            CheckpointError: it cannot be read, or does not fit the model, which is as before.
            ConfigError: the name is taken, or has other than letters, digits and underscores.
        """
        return self._apply(read_adapter(source), weight, name)

    def _apply(self, adapter: Adapter, weight: float, name: str | None = None) -> str:
        check_scales([weight])
        if self._offload == "disk":
            raise ConfigError(DISK)
        if name in self.adapters:
            raise ConfigError(f"there is an adapter '{name}' already; give another name")
        if name is not None and not re.fullmatch(r"\w+", name):
            raise ConfigError(f"the name of an adapter must be of letters, digits and underscores, got '{name}'")
        free = (f"{adapter.name}_{i}" if i else adapter.name for i in itertools.count())
        chosen = name or next(candidate for candidate in free if candidate not in self.adapters)
        load_adapter(self.backbone.trainable, adapter, chosen)
        self._learn(adapter, weight)
        self.adapters[chosen] = Applied(chosen, adapter.source, adapter.sha256, float(weight))
        self.set_adapters({used.name: used.weight for used in self.adapters.values()})
        return chosen

    def _learn(self, adapter: Adapter, weight: float) -> None:
        """Draw as the adapter was trained where the model was not trained otherwise; say where it was."""
        other = {name: value for name, value in adapter.training.items() if self._training.get(name, value) != value}
        if other and weight:
            said = ", ".join(f"{name} {value} (the model with {self._training[name]})" for name, value in other.items())
            warnings.warn(f"adapter {adapter.source} was trained with {said}; what is the model's counts", stacklevel=4)
        learnt = _learnt([(adapter, weight)], self._training)
        self._warned = self._warned and not learnt
        self._training |= learnt

    def set_adapters(self, weights: Mapping[str, float]) -> None:
        """Give adapters other weights; those that are not named are switched off.

        Args:
            weights: by name, as in `adapters`; any finite number.

        Raises:
            UnknownNameError: there is no adapter of that name.
            ConfigError: a weight is not a number.
        """
        check_scales(weights.values())
        set_adapters(self.backbone.trainable, weights)
        self.adapters = {
            name: attrs.evolve(used, weight=float(weights.get(name, 0.0))) for name, used in self.adapters.items()
        }

    def merge_adapters(self) -> None:
        """Make the adapters that are on part of the model's own weights, times theirs, and drop the others.

        Afterwards the model draws what it drew before, up to rounding, and can be saved and fine-tuned as a whole.
        """
        active = [used for used in self.adapters.values() if used.weight]
        merge_adapters(self.backbone.trainable, [used.name for used in active])
        self.adapters, self.merged = {}, (*self.merged, *active)

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
        on_step: Callable[[SamplingStep], None] | None = None,
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
            on_step: called after every step; see `d4k.SamplingStep`.

        Returns:
            RGB pictures; `picture.info["d4k"]` holds the recipe as a dict, with what `from_pretrained` was given as far
            as pixels depend on it.

        Raises:
            ConfigError: a value does not suit the backbone.
        """
        prompts, seeds = _pairs(prompt, seed)
        _check_positive(batch_size=batch_size)
        if "step_cache" in self._facts and batch_size > 1:
            raise ConfigError("a step cache judges a batch as one picture: with step_cache, batch_size must be 1")
        settings = self._settings(width, height, steps, guidance, shift) | {"negative_prompt": negative_prompt}
        self._warn_of_deviation(settings)
        drawn = sample(self.backbone, prompts, seeds, batch_size=batch_size, on_step=on_step, **settings)
        pictures = []
        for tensor, text, number in zip(drawn, prompts, seeds, strict=True):
            picture = to_picture(tensor)
            picture.info["d4k"] = self._recipe(text, number, settings)
            pictures.append(picture)
        return pictures

    def generate_to(
        self,
        folder: str | Path,
        jobs: Sequence[str | Job],
        *,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        shift: float | None = None,
        seed: int = 0,
        negative_prompt: str = "",
        on_step: Callable[[SamplingStep], None] | None = None,
        on_picture: Callable[[Path], None] | None = None,
    ) -> list[Path]:
        """Draw many pictures into a folder, with their recipes and an `index.jsonl`; resumable.

        Called again with the same arguments it draws what is missing. Under `accelerate launch` every process draws its
        share. Sizes, and the pictures that are there already, are checked before anything is drawn.

        Args:
            folder: new, empty, or of an earlier call; or one new .png, .jpg or .webp file, for one job.
            jobs: prompts, or `d4k.Job` objects with a seed, a size or a negative prompt of their own.
            width: as for `generate`, of the jobs that have none of their own.
            height: likewise.
            steps: as for `generate`.
            guidance: likewise.
            shift: likewise.
            seed: of the jobs that have none.
            negative_prompt: of the jobs that have none.
            on_step: called after every step.
            on_picture: called with each file that was drawn.

        Returns:
            The files of this process's share, in the order of the jobs.

        Raises:
            ConfigError: a value does not suit the backbone.
            OutputError: the folder holds other pictures, or some of other settings, or cannot be written.
        """
        own = {"width": width, "height": height, "seed": seed, "negative_prompt": negative_prompt}
        filled = fill_jobs(jobs, **own)
        known = {
            size: self._recipe("", 0, {**self._settings(*size, steps, guidance, shift), "negative_prompt": ""})
            for size in {(job.width, job.height) for job in filled}
        }

        def recipe(job: Job) -> dict[str, Any]:
            own = {"prompt": job.prompt, "seed": job.seed, "negative_prompt": job.negative_prompt}
            return known[job.width, job.height] | own

        def generate(recipe: Mapping[str, Any], tick: Callable[[SamplingStep], None]) -> Image:
            settings = {name: recipe[name] for name in DRAWN}
            return self.generate(recipe["prompt"], on_step=tick, **settings)[0]

        return generate_into(Path(folder), filled, recipe, generate, on_step=on_step, on_picture=on_picture)

    def _settings(
        self, width: int | None, height: int | None, steps: int | None, guidance: float | None, shift: float | None
    ) -> dict[str, Any]:
        """Size and sampling settings: as given, or what the checkpoint says or was trained with, or the preset."""
        given = {"width": width, "height": height, "steps": steps, "guidance": guidance, "shift": shift}
        known = (self._options, attrs.asdict(self.backbone.defaults), self._training)
        chosen = choose_settings(self.backbone, self._name, given, known)
        _check_positive(steps=chosen["steps"])
        return chosen

    def _recipe(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """All that makes a picture what it is."""
        used = [attrs.asdict(adapter) for adapter in (*self.merged, *self.adapters.values())]
        fixed = {"options": dict(self._options), **self._facts, "versions": versions()}
        if used:
            fixed["adapters"] = used
        return {"prompt": prompt, "seed": seed, "model": self._weights, **settings, **fixed}

    def _warn_of_deviation(self, settings: Mapping[str, Any]) -> None:
        """Say once what is drawn otherwise than it was trained."""
        odd = "" if self._warned else "; ".join(deviations(self.backbone, self._training, settings))
        if odd:
            self._warned = True
            warnings.warn(
                f"'{self.model}' draws otherwise than it was trained: {odd}. Leave these out to draw as trained",
                stacklevel=3,
            )

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
    ) -> Run:
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
                `width=4096`, `batch_size=4`; `schedule="cosine"` names the learning-rate schedule; `adapter_rank=16`,
                or another key of the section adapter after `adapter_`, trains an adapter, which stays switched on.

        Returns:
            The finished run.

        Raises:
            ConfigError: a setting is unknown or out of range.
            OutputError: `output_dir` is not empty, or cannot be written.
            DataError: a picture cannot be used.
        """
        data: dict[str, Any] = {
            **self._origin(Path(output_dir) if resume else None),
            "output_dir": str(output_dir),
            "seed": seed,
            "dataset": _component(dataset, dataset_options),
            "loss": _component(loss, loss_options),
            **_sections({"steps": steps, **settings}),
        }
        return self.run(from_mapping(RunConfig, data), dataset=dataset, loss=loss, resume=resume, on_step=on_step)

    def _origin(self, resumed: Path | None) -> dict[str, Any]:
        """What the weights in memory are; for a run to resume that began with the model as loaded, what that was."""
        record = resumed / "config.toml" if resumed is not None else None
        before = read_toml(record) if record is not None and record.is_file() else {}
        origin = (
            self._loaded if before.get("model") == self.model else {"model": self._weights, **_loaded_with(self._facts)}
        )
        # a run adds to the options what it trained with; those that it began with are what it goes on with
        options = before.get("backbone", {})
        same = before and all(self._options.get(name) == value for name, value in options.items())
        return {**origin, "backbone": options if same else self._options}

    def run(
        self,
        config: RunConfig,
        *,
        dataset: str | Dataset | None = None,
        loss: str | Loss | None = None,
        resume: bool = False,
        on_step: Callable[[int, float], None] | None = None,
    ) -> Run:
        """Fine-tune as a configuration says; `dataset` and `loss` replace what it names when they are objects."""
        self._refuse("fine-tune", "offload", "quantize", "step_cache")
        if config.adapter is not None and self.merged:
            raise ConfigError(
                "the model holds merged adapters and is in no folder, so that a new adapter's record could not name "
                "it: save_pretrained first, and load that"
            )
        chosen = _given("dataset", dataset, config.dataset)
        objective = _given("loss", loss, config.loss)
        facts = trained_with(self.backbone, config.flow)
        options = self._options | _as_options(type(self.backbone), facts)
        card = (self._name, options)
        run = train(self.backbone, chosen, objective, config, resume=resume, card=card, on_step=on_step)
        self._options, self._training = options, facts
        if run.adapter is None:
            self._weights, self.merged = str(run.model), ()
            self._facts = {name: value for name, value in self._facts.items() if name not in LOADED_WITH}
        else:
            self.adapters[TRAINED] = Applied(TRAINED, str(run.adapter), read_adapter(run.adapter).sha256)
        return run

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
            ConfigError: it has adapters that are not merged.
            OutputError: the folder exists and is not empty, or cannot be written.
        """
        if present := loaded_adapters(self.backbone.trainable):
            raise ConfigError(
                f"the model has adapters ({', '.join(present)}), which are files of their own; "
                "call merge_adapters() to save it with them"
            )
        self._refuse("save", "offload", "quantize")
        target = Path(folder)
        refuse_used(target)
        with atomic_folder(target) as temporary:
            self.backbone.save(temporary)
            write_card(temporary, self._name, self._options, training=self._training)

    def _refuse(self, what: str, *settings: str) -> None:
        known = self._facts if self._offload is None else {**self._facts, "offload": self._offload}
        for setting in settings:
            if setting in known:
                raise ConfigError(
                    f"cannot {what} a model loaded with {setting}={known[setting]!r}: load it without {setting}"
                )


def train_from_config(
    config: RunConfig, *, device: str | None = None, memory_gb: float | None = None, resume: bool = False
) -> Run:
    """Load what a configuration names and fine-tune it; a mistake in dataset or loss shows before the model is read."""
    if not resume:
        refuse_used(Path(config.output_dir))
    check_options(config.backbone)
    dataset, loss = _given("dataset", None, config.dataset), _given("loss", None, config.loss)
    frozen = config.adapter is not None  # weights that are not trained need no more digits than are computed with
    dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(config.training.precision, "float32") if frozen else "float32"
    pipe = Pipeline.from_pretrained(
        config.model,
        device=device,
        dtype=dtype,
        revision=config.revision,
        variant=config.variant,
        transformer=config.transformer,
        memory_gb=memory_gb,
        **config.backbone,
    )
    return pipe.run(config, dataset=dataset, loss=loss, resume=resume)


def check_options(options: Mapping[str, Any], call: Callable[..., Any] = Pipeline.from_pretrained) -> None:
    """Refuse options of a backbone that `call`, to which they are handed on, would take for its own.

    Raises:
        ConfigError: there is one.
    """
    taken = {*inspect.signature(call).parameters, "source"}
    for name in options:
        if name in taken:
            raise ConfigError(f"'{name}' is not an option of the backbone but a setting of its own: take it out there")


def metrics_by_name(names: Sequence[str]) -> dict[str, Metric]:
    """Registered metrics with their default options, by name."""
    return {name: create("metric", name) for name in names}


def _loaded_with(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in LOADED_WITH if name in facts}


def _learnt(wanted: Sequence[tuple[Adapter, float]], trained: Mapping[str, Any]) -> dict[str, Any]:
    """What the adapters that are on were trained with, where nothing is known of the model; the first counts."""
    facts = {name: value for adapter, on in reversed(wanted) if on for name, value in adapter.training.items()}
    return {name: value for name, value in facts.items() if name not in trained}


def _as_options(implementation: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the facts that are options of a backbone's class."""
    known = {field.alias for field in attrs.fields(implementation) if field.init}
    return {name: value for name, value in facts.items() if name in known}


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
        elif key in ADAPTER:
            result.setdefault("adapter", {})[ADAPTER[key]] = value
        elif key in homes:
            result.setdefault(homes[key], {})[key] = value
        else:
            known = sorted([*homes, *ADAPTER, "schedule", "warmup_steps", "optimizer"])
            raise ConfigError(f"unknown setting '{key}'{did_you_mean(key, known)} Known: {', '.join(known)}.")
    return result
