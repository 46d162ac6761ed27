"""A diffusers pipeline without weights: every part made on the meta device from its configuration file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from attrs import frozen
from torch import nn

from d4k.errors import CheckpointError
from d4k.upstream import kept_in_float32

__all__ = ["Tokenizer", "empty_pipeline"]

Fetch = Callable[[str], "dict[str, Any] | None"]


@frozen
class Tokenizer:
    """Stands where a pipeline has a tokenizer: planning needs to know how long texts are, not what they say.

    Args:
        model_max_length: tokens.
    """

    model_max_length: int


def empty_pipeline(pipeline_class: Any, fetch: Fetch, dtype: torch.dtype) -> Any:
    """Make a diffusers pipeline whose models have shapes and no memory.

    Args:
        pipeline_class: a diffusers pipeline.
        fetch: reads a JSON file of the model by its path in the diffusers layout; None where there is no such file.
        dtype: of the weights.

    Raises:
        CheckpointError: a configuration file is missing, or a part is of a class that cannot be made from one.
    """
    index = _required(fetch, "model_index.json")
    parts = {name: entry for name, entry in index.items() if isinstance(entry, list) and not name.startswith("_")}
    return pipeline_class(**{name: _part(name, library, kind, fetch, dtype) for name, (library, kind) in parts.items()})


def _part(name: str, library: str | None, kind: str | None, fetch: Fetch, dtype: torch.dtype) -> Any:
    if library is None or kind is None:
        return None
    if "tokenizer" in name:
        settings = fetch(f"{name}/tokenizer_config.json") or {}
        return Tokenizer(int(settings["model_max_length"])) if "model_max_length" in settings else None
    if name == "scheduler":
        return _class(name, library, kind).from_config(_required(fetch, f"{name}/scheduler_config.json"))
    if not hasattr(_class(name, library, kind), "forward"):
        return None  # feature extractors and the like: no weights
    return _model(_class(name, library, kind), _required(fetch, f"{name}/config.json"), dtype)


def _model(kind: Any, config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        made = kind(kind.config_class(**config)) if hasattr(kind, "config_class") else kind.from_config(config)
    model: nn.Module = nn.Module.to(made, dtype=dtype).eval()  # diffusers' own `to` warns of what the next lines mend
    if dtype == torch.float16:
        for pattern in kept_in_float32(kind):
            for path, module in model.named_modules():
                if pattern in path.split("."):
                    module.float()
    return model


def _class(name: str, library: str, kind: str) -> Any:
    try:
        return getattr(import_module(library), kind)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"'{name}' is a {library}.{kind}, which the installed {library} does not have") from error


def _required(fetch: Fetch, path: str) -> dict[str, Any]:
    found = fetch(path)
    if found is None:
        raise CheckpointError(f"{path} is missing: a model is planned from its configuration files. Download it again.")
    return found
