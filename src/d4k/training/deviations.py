"""What a run trains otherwise than its model was trained, or will be sampled."""

from __future__ import annotations

from collections.abc import Iterator

from d4k.config import FlowSettings, RunConfig
from d4k.errors import ConfigError
from d4k.models import Model
from d4k.protocols import Backbone
from d4k.sampling import is_other_size
from d4k.training.noise import sampling_shift, training_shift
from d4k.training.result import trained_with

__all__ = ["deviations_of_run", "note_of_run"]


def note_of_run(backbone: Backbone, model: Model, config: RunConfig, width: int, height: int) -> tuple[str, ...]:
    """What a run says in one line before it begins; nothing where it goes on as its model was trained.

    Args:
        backbone: loaded.
        model: what is known of it.
        config: of the run.
        width: pixels of its pictures.
        height: likewise.

    Returns:
        One sentence with all of `deviations_of_run`, or none.
    """
    odd = "; ".join(deviations_of_run(backbone, model, config, width, height))
    return (f"this run differs from how '{model.ref.name}' was trained or is sampled: {odd}",) if odd else ()


def deviations_of_run(backbone: Backbone, model: Model, config: RunConfig, width: int, height: int) -> Iterator[str]:
    """What a run trains otherwise than the model was trained, or will be sampled, in words.

    Another shape of about as many pixels is no other size.

    Args:
        backbone: loaded.
        model: what is known of it.
        config: of the run.
        width: pixels of its pictures.
        height: likewise.
    """
    before, now = model.training, trained_with(backbone, config)
    for name, value in backbone.trained_options.items():
        if before.options.get(name, value) != value:
            yield f"{name} {value}, the model was trained with {before.options[name]}"
    if None not in (now.guidance, before.guidance) and now.guidance != before.guidance:
        yield f"guidance {now.guidance:g}, the model was trained with {before.guidance:g}"
    seen = (before.width or width, before.height or height)
    if is_other_size((width, height), seen):
        yield f"size {width}x{height}, the model was trained at {seen[0]}x{seen[1]}"
    yield from _other_shift(backbone, model, config.flow, width, height)


def _other_shift(backbone: Backbone, model: Model, flow: FlowSettings, width: int, height: int) -> Iterator[str]:
    """How the shift of a run differs from that of the model before, and from that of sampling afterwards."""
    before = model.training.shift
    if not isinstance(flow.shift, int | float):
        if before is not None and training_shift(backbone, model, flow, width, height) != before:
            yield f"shift 1, the model was trained with {before:g}"
    elif before is not None and flow.shift != before:
        yield f"shift {flow.shift:g}, the model was trained with {before:g}"
    elif flow.recorded_shift is None and width * height > backbone.defaults.size**2:
        try:
            sampled = f"{sampling_shift(backbone, model, width, height):.3g}"
        except ConfigError:
            sampled = "other noise levels, which no shift gives"
        if sampled != f"{flow.shift:.3g}":
            yield f"shift {flow.shift:g}, sampling at this size takes {sampled}"
