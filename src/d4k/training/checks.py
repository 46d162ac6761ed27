"""What a run refuses before anything is written."""

from __future__ import annotations

from weakref import WeakSet

import torch

from d4k.adapters import TRAINED, check_targets, loaded_adapters
from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.images import Crop
from d4k.models import LoadedModel, adapter_numbers, refuse_large_training
from d4k.protocols import Backbone
from d4k.training.disk import STATE_BYTES
from d4k.training.launch import chosen_strategy, process_count

__all__: list[str] = []

changed: WeakSet[torch.nn.Module] = WeakSet()
"""Denoisers whose own weights an interrupted run has changed, so that no name or folder stands for them."""


def check_adapters(module: torch.nn.Module, config: RunConfig, resume: bool) -> None:
    """Refuse adapters that the run would mix with what it trains, and targets that there are not.

    Raises:
        ConfigError: the model has adapters, or lacks a target.
    """
    present = loaded_adapters(module)
    if present and not (resume and config.adapter and present == [TRAINED]):
        raise ConfigError(
            f"the model has adapters ({', '.join(present)}), which would be mixed with what is trained; "
            "merge them first (Pipeline.merge_adapters), or load the model without them"
        )
    if config.adapter is not None:
        check_targets(module, config.adapter.targets)


def check_precision(module: torch.nn.Module, config: RunConfig) -> None:
    """Refuse weights that the run would compute with in another precision, or in which its updates would be lost.

    Raises:
        ConfigError: the weights are not float32, and all of them are trained or `training.precision` is "no".
    """
    dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    other = next((str(dtype).removeprefix("torch.") for dtype in dtypes if dtype != torch.float32), None)
    if other is None:
        return
    if config.adapter is None and config.optimizer.name == "adamw-bf16" and other == "bfloat16":
        return
    if config.adapter is None:
        raise ConfigError(
            f"the model's weights are {other}, which rounds most updates of a fine-tune away: load the model in "
            "float32 (dtype='float32') and set training.precision = 'bf16' to compute in bfloat16, or train an adapter"
        )
    if config.training.precision == "no":
        raise ConfigError(
            f"the model's weights are {other}, and training.precision = 'no' computes in "
            "float32; set it to 'bf16' or 'fp16', or load the model in float32"
        )


def check_quantized(loaded: LoadedModel, config: RunConfig) -> None:
    """Refuse a model in fewer bits unless an adapter is trained over it, and the run says so.

    Raises:
        ConfigError: how the model was loaded and `adapter.quantize` differ.
    """
    if config.adapter is None:
        loaded.refuse("fine-tune all weights of", "quantize")
    elif config.adapter.quantize != loaded.loading.quantize:
        raise ConfigError(
            f"adapter.quantize is {config.adapter.quantize or 'left out'}, and the model was loaded with quantize="
            f"{loaded.loading.quantize}: make them agree"
        )


def check_memory(backbone: Backbone, crop: Crop, config: RunConfig) -> None:
    """Refuse a size, a batch or a rank that asks for more memory than there is.

    Raises:
        ConfigError: it does; the message says how much is needed at least.
    """
    module, trained = backbone.trainable, 0
    if config.adapter is not None:
        trained = adapter_numbers(module, check_targets(module, config.adapter.targets), config.adapter.rank)
    away = config.parallel.offload == "optimizer"
    refuse_large_training(
        backbone,
        crop.width,
        crop.height,
        batch_size=config.training.batch_size,
        trained=trained,
        state=0 if away else STATE_BYTES.get(config.optimizer.name, 0),
        share=process_count() if chosen_strategy(config) == "fsdp2" else 1,
    )


def check_unchanged(module: torch.nn.Module, config: RunConfig, *, restored: bool) -> None:
    """Refuse to begin with weights that are neither those of the model nor those of a checkpoint.

    Args:
        module: the denoiser.
        config: of the run that begins.
        restored: the run goes on from a checkpoint.

    Raises:
        ConfigError: a run that was interrupted has changed them, and no checkpoint replaces them.
    """
    if module in changed and not (restored and config.adapter is None):
        raise ConfigError(
            f"the weights in memory are those of a run that was interrupted, not those of '{config.model}': "
            "load the model again before you train it"
        )
