"""What a run leaves: the model or the adapter, with a record of how it was trained."""

from __future__ import annotations

import math

from attrs import evolve

from d4k.adapters import ADAPTER_WEIGHTS, trained_adapter, write_adapter
from d4k.config import RunConfig
from d4k.files import atomic_folder
from d4k.models import Card, Model, ModelRef, RunFolder, Training, write_card
from d4k.protocols import Backbone
from d4k.training.data.buckets import bucket_sizes
from d4k.training.noise import lasting_shift

__all__ = ["trained_model", "trained_with"]


def trained_with(backbone: Backbone, config: RunConfig) -> Training:
    """What a run trains with that sampling should use again; it is kept beside the weights.

    Args:
        backbone: loaded.
        config: of the run.

    Returns:
        The size in pixels, of several the largest; the backbone's options that a trained model must be sampled with;
        the embedded guidance where it is an input of the denoiser; the shift of the noise levels where it is not 1; the
        decay of the moving average where that is what is saved.
    """
    embedded, flow = backbone.defaults.embedded_guidance, config.flow
    width, height = max(bucket_sizes(backbone, config.data), key=math.prod)
    return Training(
        width=width,
        height=height,
        guidance=embedded if embedded is None or flow.guidance is None else flow.guidance,
        shift=flow.recorded_shift,
        options=dict(backbone.trained_options),
        ema=config.ema.decay if config.ema is not None and config.ema.save else None,
    )


def trained_model(backbone: Backbone, model: Model, config: RunConfig) -> Model:
    """What is known of a model once a run has trained it.

    Args:
        backbone: loaded.
        model: what was known before.
        config: of the run.
    """
    training = trained_with(backbone, config)
    if training.width is not None and training.height is not None:
        shift = lasting_shift(backbone, model, config.flow, training.width, training.height)
        training = evolve(training, shift=shift)
    options = {**model.options, **backbone.trained_options}
    options |= {name: value for name, value in training.sampling.items() if name in options}
    return evolve(model, options=options, training=training)


def save_result(backbone: Backbone, run: RunFolder, config: RunConfig, model: Model | None) -> None:
    """Write what was trained: the whole model, or its adapter alone.

    Args:
        backbone: trained.
        run: where the run is kept.
        config: of the run.
        model: what was known of the model before; a card beside the weights says what is now. None keeps no card.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    with atomic_folder(run.model if config.adapter is None else run.adapter) as temporary:
        if config.adapter is None:
            backbone.save(temporary)
        else:
            write_adapter(trained_adapter(backbone.trainable), temporary / ADAPTER_WEIGHTS)
        if model is not None:
            now = trained_model(backbone, model, config)
            began = ModelRef(config.model, config.revision, config.variant, config.transformer)
            base = None if config.adapter is None else began
            write_card(temporary, Card(now.backbone, now.options, training=now.training, base=base))
