"""What a run leaves: the model or the adapter, with a record of how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d4k.adapters import ADAPTER_WEIGHTS, trained_adapter, write_adapter
from d4k.config import RunConfig
from d4k.files import atomic_folder
from d4k.models import Card, ModelRef, RunFolder, Training, write_card
from d4k.protocols import Backbone

__all__ = ["trained_with"]


def trained_with(backbone: Backbone, config: RunConfig) -> Training:
    """What a run trains with that sampling should use again; it is kept beside the weights.

    Args:
        backbone: loaded.
        config: of the run.

    Returns:
        The size in pixels; the backbone's options that a trained model must be sampled with; the embedded guidance
        where it is an input of the denoiser; the shift of the noise levels where it is not 1.
    """
    size, embedded, flow = backbone.defaults.size, backbone.defaults.embedded_guidance, config.flow
    return Training(
        width=config.data.width or size,
        height=config.data.height or size,
        guidance=embedded if embedded is None or flow.guidance is None else flow.guidance,
        shift=flow.recorded_shift,
        options=dict(backbone.trained_options),
    )


def save_result(
    backbone: Backbone, run: RunFolder, config: RunConfig, card: tuple[str, Mapping[str, Any]] | None
) -> None:
    """Write what was trained: the whole model, or its adapter alone.

    Args:
        backbone: trained.
        run: where the run is kept.
        config: of the run.
        card: backbone name and options to keep beside the weights; None keeps none.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    with atomic_folder(run.model if config.adapter is None else run.adapter) as temporary:
        if config.adapter is None:
            backbone.save(temporary)
        else:
            write_adapter(trained_adapter(backbone.trainable), temporary / ADAPTER_WEIGHTS)
        if card is not None:
            began = ModelRef(config.model, config.revision, config.variant, config.transformer)
            base = None if config.adapter is None else began
            write_card(temporary, Card(*card, training=trained_with(backbone, config), base=base))
