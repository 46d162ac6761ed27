"""A diffusers pipeline without weights: every part made on the meta device from its configuration file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from attrs import define
from torch import nn

from d4k.errors import CheckpointError, first_line
from d4k.models.card import fetch_json
from d4k.models.placement import DENOISER
from d4k.protocols import Placement
from d4k.upstream import kept_in_float32

__all__ = ["Tokenizer", "config_reader", "empty_pipeline"]

Fetch = Callable[[str], "dict[str, Any] | None"]
LIBRARIES = ("diffusers", "transformers")


@define(slots=False)  # pipelines write to it: Lumina 2 its padding_side, HiDream its pad_token
class Tokenizer:
    """Stands where a pipeline has a tokenizer: planning needs to know how long texts are, not what they say.

    Args:
        model_max_length: tokens.
        eos_token: likewise a stand-in.
        pad_token: likewise a stand-in.
    """

    model_max_length: int
    eos_token: str = ""
    pad_token: str = ""


def config_reader(source: str, placement: Placement) -> Fetch:
    """What `empty_pipeline` reads configuration files with, those of a denoiser that replaces the model's own included.

    Args:
        source: folder or Hub id of a model.
        placement: names the revision and the denoiser.
    """
    other = placement.transformer
    folder = Path(other) if other is not None else None
    homes = [] if folder is None else [folder / DENOISER, folder]
    home = next((home for home in homes if (home / "config.json").is_file()), None)
    on_hub = other is not None and folder is not None and not folder.exists() and other.count("/") == 1

    def fetch(path: str) -> dict[str, Any] | None:
        if path == f"{DENOISER}/config.json":
            if home is not None:
                return fetch_json(str(home), "config.json")
            if on_hub:
                return fetch_json(str(other), path) or fetch_json(str(other), "config.json")
        return fetch_json(source, path, revision=placement.revision)

    return fetch


def empty_pipeline(pipeline_class: Any, fetch: Fetch, dtype: torch.dtype) -> Any:
    """Make a diffusers pipeline whose models have shapes and no memory.

    Args:
        pipeline_class: a diffusers pipeline.
        fetch: reads a JSON file of the model by its path in the diffusers layout; None where there is no such file.
        dtype: of the weights.

    Raises:
        CheckpointError: a configuration file is missing or cannot be, or a part is of a class that is not a model, a
            scheduler or a tokenizer of diffusers or transformers.
    """
    index = _required(fetch, "model_index.json")
    parts = {name: entry for name, entry in index.items() if isinstance(entry, list) and not name.startswith("_")}
    return pipeline_class(**{name: _part(name, entry, fetch, dtype) for name, entry in parts.items()})


def _part(name: str, entry: list[Any], fetch: Fetch, dtype: torch.dtype) -> Any:
    if entry == [None, None]:
        return None
    cls = _class(name, entry)
    if "tokenizer" in name:
        settings = fetch(f"{name}/tokenizer_config.json") or {}
        return Tokenizer(int(settings["model_max_length"])) if "model_max_length" in settings else None
    if name == "scheduler":
        return cls.from_config(_required(fetch, f"{name}/scheduler_config.json"))
    if not issubclass(cls, nn.Module):
        return None  # feature extractors and the like: no weights
    return _model(cls, _required(fetch, f"{name}/config.json"), dtype, f"{name}/config.json")


def _model(kind: Any, config: Mapping[str, Any], dtype: torch.dtype, where: str) -> nn.Module:
    try:
        with torch.device("meta"):
            made = kind(kind.config_class(**config)) if hasattr(kind, "config_class") else kind.from_config(config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"no {kind.__name__} can be made as {where} says: {first_line(error)}") from error
    model: nn.Module = nn.Module.to(made, dtype=dtype).eval()  # diffusers' own `to` warns of what the next lines mend
    if dtype == torch.float16:
        for pattern in kept_in_float32(kind):
            for path, module in model.named_modules():
                if pattern in path.split("."):
                    module.float()
    return model


def _class(name: str, entry: list[Any]) -> Any:
    """The class of one part; nothing is imported but diffusers and transformers, and nothing taken that is no part."""
    library, kind = entry if len(entry) == 2 else (None, None)
    if library not in LIBRARIES or not isinstance(kind, str):
        raise CheckpointError(
            f"model_index.json says that '{name}' is {entry!r}: d4k takes parts of {' and '.join(LIBRARIES)} only, and "
            "imports nothing else because a file names it"
        )
    try:
        found = getattr(import_module(library), kind)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"'{name}' is a {library}.{kind}, which the installed {library} does not have") from error
    if not isinstance(found, type) or not _is_part(found):
        raise CheckpointError(f"'{name}' is a {library}.{kind}, which is no part of a pipeline")
    return found


def _is_part(cls: type) -> bool:
    """Whether it is a model, a scheduler, a tokenizer, or what prepares pictures."""
    from diffusers import DiffusionPipeline, SchedulerMixin
    from diffusers.configuration_utils import ConfigMixin

    loads = hasattr(cls, "from_pretrained")
    made = issubclass(cls, nn.Module) and (issubclass(cls, ConfigMixin) or hasattr(cls, "config_class"))
    other = cls.__module__.startswith("transformers.") and not issubclass(cls, nn.Module)
    return loads and not issubclass(cls, DiffusionPipeline) and (made or other or issubclass(cls, SchedulerMixin))


def _required(fetch: Fetch, path: str) -> dict[str, Any]:
    found = fetch(path)
    if found is None:
        raise CheckpointError(f"{path} is missing: a model is planned from its configuration files. Download it again.")
    return found
