"""Which model, and what is known of its training: one frozen value each, and the one rule of precedence.

A setting of sampling, or an option of the backbone, may be said in five places. The first that says it counts:

1. given: on the command line, as a keyword, in a recipe or a run's TOML;
2. the model's own record: the `d4k.json` beside its weights;
3. the record of an adapter that is switched on, the first one first;
4. registered: what a plugin says of a model that it gives a short name to;
5. the backbone's preset for the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["ModelRef", "Training"]


@frozen
class ModelRef:
    """Which model, as a user names it; nothing is looked up yet.

    Args:
        name: a registered checkpoint, a folder (in the diffusers layout, of a run, of a checkpoint in it), or a Hub id.
        revision: of a Hub id: branch, tag or commit.
        variant: of the weight files, such as "fp16".
        transformer: a file, a folder or a Hub id whose denoiser replaces that of the model.
        adapters: source -> scale: low-rank adapters (LoRA) to switch on.
        options: of the backbone.
    """

    name: str
    revision: str | None = None
    variant: str | None = None
    transformer: str | None = None
    adapters: Mapping[str, float] = field(factory=dict)
    options: Mapping[str, Any] = field(factory=dict)


@frozen
class Training:
    """What is known of how a model or an adapter was trained; None and absent mean that nothing is.

    Args:
        width: pixels of the pictures it saw.
        height: likewise.
        guidance: the scale that was an input of the denoiser.
        shift: of the noise levels.
        options: what `Backbone.trained_options` said.
    """

    width: int | None = None
    height: int | None = None
    guidance: float | None = None
    shift: float | None = None
    options: Mapping[str, Any] = field(factory=dict)
