"""The public API, written out. Whoever changes a line here changes what users and plugins rely on."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

import d4k
from d4k.cli import main
from d4k.cli.adapter import adapter
from d4k.cli.cache import cache
from d4k.cli.data import data
from d4k.config import RunConfig, from_mapping
from d4k.plugins import hookspecs

NAMES = [
    "Backbone",
    "Caption",
    "Captioner",
    "CheckpointError",
    "CleanEstimate",
    "Conditioning",
    "ConfigError",
    "D4KError",
    "DataError",
    "Dataset",
    "Filter",
    "FlowStep",
    "Guide",
    "Job",
    "LatentSpec",
    "Limit",
    "Loading",
    "Loss",
    "Metric",
    "ModelRef",
    "OutputError",
    "Picture",
    "Pipeline",
    "Placement",
    "PluginError",
    "Preset",
    "Run",
    "Sample",
    "SamplingDefaults",
    "SamplingSettings",
    "Score",
    "UnknownNameError",
    "Upscaler",
    "create",
    "hookimpl",
]

MODULES = {
    "autoencoder": "Posterior decode encode footprint own_downscale posterior",
    "backbones": "ExactAutoencoder computing_device computing_dtype flag flow_scheduler "
    "freeze load_pipeline modules number one_of optional resident "
    "save_pipeline text text_length trained_patches whole",
    "flow": "Density Weighting clean_from_velocity per_sample resolution_shift "
    "sample_sigma shift_sigma sigma_weight velocity_from_clean",
    "images": "MAX_PIXELS Bicubic Crop Cut Lanczos Picture list_pictures open_picture "
    "picture_size read_recipe save_picture to_float to_picture to_tensor "
    "to_uint8",
    "testing": "check_against_diffusers check_backbone check_captioner check_dataset check_filter "
    "check_loss check_metric check_shapes check_upscaler",
}

SIGNATURES = {
    "create": "(kind: Kind, name: str, **options: Any) -> Any",
    "Pipeline.from_pretrained": "(model: str | Path | ModelRef, *, adapters: Sequence[str | Path] | "
    "Mapping[str | Path, float] = (), revision: str | None = None, variant: "
    "str | None = None, transformer: str | Path | None = None, **settings: "
    "Any) -> Pipeline",
    "Pipeline.generate": "(self, prompt: str | Sequence[str], *, seed: int | Sequence[int] = 0, "
    "batch_size: int = 1, image: Given | Sequence[Given] | None = None, "
    "guide: Guide | None = None, on_step: Callback | None = None, "
    "**settings: Any) -> list[Image]",
    "Pipeline.generate_to": "(self, output: str | Path, jobs: Sequence[str | Job], *, seed: int = 0, "
    "keep_stages: bool = False, on_step: Callback | None = None, on_picture: "
    "Callable[[Path], None] | None = None, **settings: Any) -> list[Path]",
    "Pipeline.train": "(self, *, dataset: str | Dataset, output_dir: str | Path, loss: str | "
    "Loss = mse, dataset_options: Mapping[str, Any] | None = None, "
    "loss_options: Mapping[str, Any] | None = None, resume: bool = False, "
    "on_step: Callable[[int, float], None] | None = None, **settings: Any) "
    "-> Run",
    "Pipeline.run": "(self, config: RunConfig, *, dataset: str | Dataset | None = None, "
    "loss: str | Loss | None = None, resume: bool = False, on_step: "
    "Callable[[int, float], None] | None = None) -> Run",
    "Pipeline.evaluate": "(self, images: str | Path | Sequence[str | Path], metrics: str | "
    "Sequence[str] | Mapping[str, Metric], *, prompts: Sequence[str] | None "
    "= None, reference: str | Path | None = None, **settings: Any) -> "
    "list[Score]",
    "Pipeline.load_adapter": "(self, source: str | Path, scale: float = 1.0, name: str | None = None) -> str",
    "Pipeline.set_adapters": "(self, scales: Mapping[str, float]) -> None",
    "Pipeline.merge_adapters": "(self) -> None",
    "Pipeline.save_pretrained": "(self, folder: str | Path) -> None",
    "Backbone.load": "(self, placement: Placement) -> None",
    "Backbone.encode_text": "(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning",
    "Backbone.encode_image": "(self, pixels: Tensor) -> Tensor",
    "Backbone.decode": "(self, latent: Tensor) -> Tensor",
    "Backbone.velocity": "(self, noisy: Tensor, sigma: Tensor, conditioning: Conditioning, "
    "guidance: float | None = None, progress: float | None = None) -> Tensor",
    "Backbone.scheduler": "(self, steps: int, height: int, width: int, shift: float | None = None) -> Any",
    "Backbone.save": "(self, folder: Path) -> None",
    "Loss.__call__": "(self, velocity: Tensor, step: FlowStep) -> Tensor",
    "Dataset.__len__": "(self) -> int",
    "Dataset.__getitem__": "(self, index: int, /) -> Sample",
    "Metric.load": "(self, device: torch.device) -> None",
    "Metric.observe": "(self, **inputs: Any) -> Tensor | Sequence[Tensor]",
    "Metric.score": "(self, rows: Tensor, references: Tensor | None = None) -> float | Mapping[str, float]",
    "Captioner.caption": "(self, image: Image, instruction: str) -> Caption",
    "Captioner.load": "(self, device: torch.device) -> None",
    "Filter.measure": "(self, picture: Picture) -> Mapping[str, float]",
    "Limit.reason": "(self, value: float) -> str | None",
    "Upscaler.__call__": "(self, pixels: Tensor, height: int, width: int) -> Tensor",
}

FUNCTIONS = {
    "autoencoder.decode": "(vae: Any, latents: Tensor, *, downscale: int, memory_gb: float | None = None) -> Tensor",
    "autoencoder.encode": "(vae: Any, pixels: Tensor, *, downscale: int, memory_gb: float | None = None) -> Tensor",
    "autoencoder.footprint": "(vae: Any, height: int, width: int, *, downscale: int, memory_gb: float "
    "| None = None, encoding: bool = False) -> int",
    "autoencoder.own_downscale": "(vae: Any) -> int",
    "autoencoder.posterior": "(vae: Any, pixels: Tensor, *, downscale: int, memory_gb: float | None = "
    "None) -> Posterior",
    "backbones.ExactAutoencoder": "(vae: Any, downscale: int, memory_gb: float | None = None) -> None",
    "backbones.ExactAutoencoder.decode": "(self, latent: Tensor) -> Tensor",
    "backbones.ExactAutoencoder.encode": "(self, pixels: Tensor) -> Tensor",
    "backbones.computing_device": "(module: Any) -> torch.device",
    "backbones.computing_dtype": "(module: Any) -> torch.dtype",
    "backbones.flag": "() -> Validator",
    "backbones.flow_scheduler": "(like: Any, steps: int, tokens: int, *, shift: float | None = None, "
    "sigmas: Sequence[float] | None = None, max_shift: float = 1.15) -> Any",
    "backbones.freeze": "(pipeline: Any, *, but: str = transformer) -> None",
    "backbones.load_pipeline": "(pipeline_class: Any, source: str, placement: Placement) -> Any",
    "backbones.modules": "(pipeline: Any) -> dict[str, torch.nn.Module]",
    "backbones.number": "(minimum: float = -inf, maximum: float = inf, *, above: bool = False, "
    "below: bool = False) -> Validator",
    "backbones.one_of": "(*choices: str | int) -> Validator",
    "backbones.optional": "(rule: Validator) -> Validator",
    "backbones.resident": "(module: Any) -> Iterator[None]",
    "backbones.save_pipeline": "(pipeline: Any, folder: Path) -> None",
    "backbones.text": "() -> Validator",
    "backbones.text_length": "(asked: int | None, tokenizer: Any, usual: int) -> int",
    "backbones.trained_patches": "(trained_size: int | None, latent: LatentSpec, rows: int) -> int",
    "backbones.whole": "(minimum: int, maximum: int | None = None) -> Validator",
    "flow.clean_from_velocity": "(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor",
    "flow.per_sample": "(sigma: Tensor) -> Tensor",
    "flow.resolution_shift": "(config: Mapping[str, Any], tokens: int, *, max_shift: float = 1.15) -> float",
    "flow.sample_sigma": "(count: int, *, density: Density = logit-normal, mean: float = 0.0, "
    "std: float = 1.0, mode_scale: float = 1.29, alpha: float = 2.0, beta: "
    "float = 4.0, shift: float = 1.0, generator: torch.Generator | None = "
    "None) -> Tensor",
    "flow.shift_sigma": "(sigma: Tensor, shift: float) -> Tensor",
    "flow.sigma_weight": "(sigma: Tensor, weighting: Weighting) -> Tensor",
    "flow.velocity_from_clean": "(noisy: Tensor, clean: Tensor, sigma: Tensor) -> Tensor",
    "images.list_pictures": "(folder: Path, *, recursive: bool = False) -> list[Path]",
    "images.open_picture": "(source: Path | Callable[[], BinaryIO], *, max_pixels: int = 300000000, "
    "label: str = ) -> Image.Image",
    "images.picture_size": "(source: Path | Callable[[], BinaryIO], *, max_pixels: int = 300000000, "
    "label: str = , upright: bool = False) -> tuple[int, int]",
    "images.read_recipe": "(path: Path) -> dict[str, Any]",
    "images.save_picture": "(image: Image.Image, path: Path, *, recipe: Mapping[str, Any] | None = "
    "None, quality: int = 95) -> None",
    "images.to_float": "(pixels: Tensor) -> Tensor",
    "images.to_picture": "(pixels: Tensor) -> Image.Image",
    "images.to_tensor": "(image: Image.Image) -> Tensor",
    "images.to_uint8": "(pixels: Tensor) -> Tensor",
    "testing.check_backbone": "(backbone: Backbone) -> None",
    "testing.check_dataset": "(dataset: Dataset) -> None",
    "testing.check_loss": "(loss: Loss) -> None",
    "testing.check_metric": "(metric: Metric, size: int = 128) -> None",
    "testing.check_shapes": "(backbone: Backbone) -> None",
    "testing.check_against_diffusers": "(backbone: Backbone, *, pipeline: Any = None, unpack: "
    "Callable[[Tensor], Tensor] | None = None, seed: int = 0, tolerance: "
    "float = 0.0001, **call: Any) -> None",
    "testing.check_captioner": "(captioner: Captioner) -> None",
    "testing.check_filter": "(chosen: Filter) -> None",
    "testing.check_upscaler": "(upscaler: Upscaler) -> None",
}

FIELDS = {
    "Picture": ["pixels", "file"],
    "Limit": ["figure", "option", "least", "most"],
    "Caption": ["text", "refused", "reason", "tokens_in", "tokens_out", "model", "cost"],
    "Conditioning": ["tensors"],
    "FlowStep": ["clean", "noise", "sigma", "noisy"],
    "Job": ["prompt", "seed", "width", "height", "negative_prompt", "id", "image"],
    "LatentSpec": ["channels", "downscale", "patch", "max_size", "downscales", "beyond"],
    "Loading": ["device", "dtype", "offload", "quantize", "attention", "compile", "step_cache", "memory_gb"],
    "ModelRef": ["name", "revision", "variant", "transformer", "adapters", "options"],
    "Placement": ["device", "dtype", "revision", "variant", "transformer", "offload", "quantize", "memory_gb"],
    "Preset": ["size", "steps", "guidance", "shift", "downscale", "restart"],
    "Run": ["output_dir", "steps", "losses"],
    "Sample": ["id", "caption", "source", "size"],
    "SamplingDefaults": ["size", "steps", "guidance", "embedded_guidance"],
    "SamplingSettings": [
        "width",
        "height",
        "steps",
        "guidance",
        "shift",
        "restart",
        "negative_prompt",
        "alignment",
        "cutoff",
        "upscaler",
        "upscaler_options",
        "earlier",
    ],
    "Score": [
        "metric",
        "value",
        "unit",
        "count",
        "higher_is_better",
        "settings",
        "details",
        "interval",
        "detail_intervals",
        "references",
        "remarks",
        "versions",
    ],
}

HOOKS = [
    "register_backbones",
    "register_captioners",
    "register_checkpoints",
    "register_datasets",
    "register_filters",
    "register_losses",
    "register_metrics",
    "register_upscalers",
]  # fmt: skip

OPTIONS = {
    "demo": "--output=demo --steps",
    "train": "recipe --set --resume --dry-run --device --memory-gb",
    "generate": "prompts --prompts --prompt-option --recipe --allow-download --width --height --image --stages "
    "--steps --guidance --shift --restart --strength --alignment --cutoff --upscaler --upscaler-option "
    "--keep-stages --output=images --model=tiny-sd3 --adapter --downscale --option --negative-prompt= "
    "--seed=0 --device --dtype=float32 --revision --variant --transformer --offload --quantize "
    "--attention --compile --step-cache --memory-gb --low-memory",
    "plan": "recipe --set --model=sd3-medium --revision --variant --transformer --adapter --size --batch-size=1 "
    "--downscale --dtype=bfloat16 --quantize --offload --train --train-dtype --precision=bf16 "
    "--adapter-rank --optimizer=adamw --steps --processes=1 --parallel=auto --keep-last=2 --gpu-gb "
    "--option --json",
    "evaluate": "folders --metric --metric-option --config --output --name --prompts --prompt-option --reference "
    "--references --device --strict --resamples=1000 --seed=0 --workers --json --markdown --latex",
    "compare": "folders --votes --all-pairs --resamples=1000 --seed=0 --json --markdown --latex --figures",
    "benchmark": "--model --adapter --option --dataset=aesthetic-4k --dataset-option --split --size --width --height "
    "--limit --metric --metric-option --config --steps --guidance --seed=0 --upscaler=lanczos "
    "--upscaler-option --output --no-report --device --dtype=float32 --revision --variant --transformer "
    "--offload --quantize --attention --compile --step-cache --memory-gb",
    "report": "folders --output=report --title --votes",
    "adapter": "",
    "adapter merge": "model adapters --output --dtype=float32",
    "adapter convert": "source --layout=comfyui --output",
    "cache": "",
    "cache fill": "recipe --set --device --memory-gb",
    "cache repair": "folder",
    "cache stats": "folder",
    "cache verify": "folder",
    "plugins": "",
    "new": "kind name --pipeline --output=.",
    "check": "plugin --model",
    "upscale": "files --size --prompt --no-refine --stages --steps --guidance --shift --restart --strength "
    "--alignment --cutoff --upscaler --upscaler-option --keep-stages --output=upscaled --model=tiny-sd3 "
    "--adapter --downscale --option --negative-prompt= --seed=0 --device --dtype=float32 --revision "
    "--variant --transformer --offload --quantize --attention --compile --step-cache --memory-gb "
    "--low-memory",
    "data": "",
    "data build": "sources --output --settings --filter --no-filter --set --link --eval --seed --licence "
    "--no-licence --workers --engine=process",
    "data caption": "folder --captioner --set --instruction --concurrency --budget --limit --again --device "
    "--corrections --review --review-count=500",
}

SETTINGS = {
    "model": "m",
    "dataset": {"name": "d", "options": {}},
    "output_dir": "o",
    "loss": {"name": "mse", "options": {}},
    "seed": 0,
    "revision": None,
    "variant": None,
    "transformer": None,
    "backbone": {},
    "data": {
        "width": None, "height": None, "crop": "center", "flip": False, "crops": None, "enlarge": False,
        "buckets": "off", "cache": "auto", "cache_dtype": "bfloat16", "posterior": "mode", "unreadable": "stop",
        "workers": 2,
    },
    "flow": {
        "density": "logit-normal", "mean": 0.0, "std": 1.0, "mode_scale": 1.29, "alpha": 2.0, "beta": 4.0,
        "shift": None, "weighting": "none", "guidance": None,
    },
    "optimizer": {
        "name": "adamw", "lr": 0.0001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-08, "weight_decay": 0.0001,
        "options": {},
    },
    "schedule": {
        "name": "constant", "warmup_steps": 0,
    },
    "training": {
        "steps": 1000, "batch_size": 1, "accumulation": 1, "clip": 1.0, "gradient_checkpointing": False,
        "activation_offload": False, "precision": "no", "caption_dropout": 0.1, "save_every": 500, "keep_last": 2,
        "keep_every": 0, "max_skipped": 10,
    },
    "adapter": None,
    "parallel": {
        "strategy": "auto", "offload": "none", "context": 1,
    },
    "ema": None,
    "validation": None,
    "tracking": {
        "trackers": (), "project": "d4k", "name": None,
    },
}  # fmt: skip


def test_names_of_the_package() -> None:
    """`from d4k import ...` offers these, each exists, and `dir` shows them."""
    assert d4k.__all__ == NAMES
    assert all(getattr(d4k, name) is not None for name in NAMES)
    assert dir(d4k) == sorted([*NAMES, "__version__"])


def test_what_is_not_public_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'd4k' has no attribute 'pipline'"):
        d4k.pipline  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_names_of_the_public_modules(name: str) -> None:
    """Each exists."""
    module = import_module(f"d4k.{name}")
    assert sorted(module.__all__) == sorted(MODULES[name].split())
    assert all(hasattr(module, public) for public in module.__all__)


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures(path: str) -> None:
    """Names, order, kinds, defaults and types of the arguments."""
    value: Any = d4k
    for part in path.split("."):
        value = getattr(value, part)
    assert str(inspect.signature(value)).replace("'", "") == SIGNATURES[path]


@pytest.mark.parametrize("path", FUNCTIONS)
def test_signatures_of_the_public_modules(path: str) -> None:
    """The same of what plugins call."""
    module, *names = path.split(".")
    value: Any = import_module(f"d4k.{module}")
    for name in names:
        value = getattr(value, name)
    assert str(inspect.signature(value)).replace("'", "") == FUNCTIONS[path]


@pytest.mark.parametrize("name", MODULES)
def test_every_function_of_the_public_modules_is_pinned(name: str) -> None:
    """A function that plugins may call is listed above with its arguments."""
    module = import_module(f"d4k.{name}")
    functions = {f"{name}.{public}" for public in module.__all__ if inspect.isfunction(getattr(module, public))}
    assert functions <= set(FUNCTIONS)


def test_pipeline_has_no_other_methods() -> None:
    """A method that is public is pinned above."""
    methods = [name for name, value in vars(d4k.Pipeline).items() if not isinstance(value, property)]
    public = {f"Pipeline.{name}" for name in methods if not name.startswith("_")}
    assert public == {path for path in SIGNATURES if path.startswith("Pipeline.")}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_the_values(name: str) -> None:
    """In the order of their arguments."""
    assert [field.name for field in attrs.fields(getattr(d4k, name))] == FIELDS[name]


def test_attributes_of_the_protocols() -> None:
    """What an implementation has beside its methods."""
    assert set(d4k.Backbone.__annotations__) == {"source"}
    assert {name for name, value in vars(d4k.Backbone).items() if isinstance(value, property)} == {
        "latent", "defaults", "trainable", "trained_options", "components",
    }  # fmt: skip
    assert {name for name, value in vars(d4k.Metric).items() if isinstance(value, property)} == {
        "needs", "higher_is_better", "unit",
    }  # fmt: skip


def test_hooks() -> None:
    """Plural names, one `register` each."""
    found = [name for name in vars(hookspecs) if name.startswith("register_")]
    assert sorted(found) == HOOKS
    assert all(list(inspect.signature(getattr(hookspecs, name)).parameters) == ["register"] for name in found)
    assert hookspecs.API_VERSION == 1


def test_commands() -> None:
    """The words of the command line."""
    assert set(main.commands) == {name for name in OPTIONS if " " not in name}
    inner = {f"{group.name} {name}" for group in (adapter, cache, data) for name in group.commands}
    assert inner == {name for name in OPTIONS if " " in name}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_commands(name: str) -> None:
    """With their defaults, in the order of the help."""
    command: click.Command = main
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    context = click.Context(command)
    found = []
    for parameter in command.params:
        default = parameter.get_default(context)
        shown = isinstance(default, str | int | Path) and not isinstance(default, bool)
        found.append(parameter.opts[0] + (f"={default}" if shown else ""))
    assert " ".join(found) == OPTIONS[name]


def test_settings_of_a_run() -> None:
    """Every key of the TOML file with its default."""
    config = from_mapping(RunConfig, {"model": "m", "dataset": {"name": "d"}, "output_dir": "o"})
    assert attrs.asdict(config) == SETTINGS
