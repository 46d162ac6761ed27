"""How a run is carried out: its processes, the average of its weights, what is looked at, and where figures go.

The lines of each Args are rows of the table in docs/training.md, as in `d4k.config.run`.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from d4k.config.choices import OFFLOADED, STRATEGIES
from d4k.config.rules import as_tuple, flag, names_or_none, number, numbers, one_of, optional, text, whole

__all__ = ["EMASettings", "ParallelSettings", "TrackingSettings", "ValidationSettings"]


@frozen
class ParallelSettings:
    """How the processes of a launch share a run.

    Args:
        strategy: How they share it. `ddp` gives each process the whole model, `fsdp2` a share of every weight, `auto`
            is `ddp` unless accelerate was told to use FSDP2. A single process needs neither.
        offload: What rests in CPU memory between its uses: `none`, the `optimizer` state, or `all` of weights,
            gradients and optimizer state, which needs `fsdp2`.
        context: Processes that share the tokens of one picture (context parallelism). 1 gives each process pictures of
            its own.
    """

    strategy: str = field(default="auto", validator=one_of(*STRATEGIES))
    offload: str = field(default="none", validator=one_of(*OFFLOADED))
    context: int = field(default=1, validator=whole(1))


@frozen
class EMASettings:
    """An exponential moving average of the trained weights, kept beside them in float32.

    Args:
        decay: Share of the average that is kept in each step. The first steps keep less, `(1 + step) / (10 + step)`, so
            that the average soon leaves the weights that the run began with.
        device: Where it is held: `same` as the weights, or `cpu`, which is slower and takes no memory of the device.
        save: Saves the averaged weights as the result of the run. Otherwise the trained ones, and the average is in the
            checkpoints alone.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992.
    """

    decay: float = field(default=0.9999, validator=number(0, 1, below=True))
    device: Literal["same", "cpu"] = field(default="same", validator=one_of("same", "cpu"))
    save: bool = field(default=True, validator=flag())


@frozen
class ValidationSettings:
    """What is looked at while the model trains.

    Args:
        every: Steps from one validation to the next. There is one before the first step and one after the last.
        prompts: Prompts that pictures are sampled for, always from the same noise, into a contact sheet.
        seeds: Pictures for each prompt.
        seed: Number that decides their noise.
        steps: Sampling steps. Left out, what the model is sampled with.
        guidance: Guidance scale. Left out, what the model is sampled with.
        width: Width in pixels of the pictures. Left out, that of the run.
        height: Height in pixels of the pictures. Left out, that of the run.
        holdout: Pictures of the dataset that are not trained on; the loss on them is measured. 0 holds none back.
        sigmas: Noise levels at which that loss is measured, each with the same noise every time.
    """

    every: int = field(default=500, validator=whole(1))
    prompts: tuple[str, ...] = field(default=(), converter=as_tuple, validator=names_or_none())
    seeds: int = field(default=1, validator=whole(1))
    seed: int = field(default=0, validator=whole(0))
    steps: int | None = field(default=None, validator=optional(whole(1)))
    guidance: float | None = field(default=None, validator=optional(number(0)))
    width: int | None = field(default=None, validator=optional(whole(1)))
    height: int | None = field(default=None, validator=optional(whole(1)))
    holdout: int = field(default=0, validator=whole(0))
    sigmas: tuple[float, ...] = field(default=(0.1, 0.3, 0.5, 0.7, 0.9), converter=as_tuple, validator=numbers(0, 1))


@frozen
class TrackingSettings:
    """Where the figures of a run go besides its folder, which always has `losses.jsonl` and TensorBoard's file.

    Args:
        trackers: Further trackers of accelerate, each needs its package, such as `wandb` or `trackio`.
        project: Project that they file the run under.
        name: What they call the run. Left out, the name of its folder.
    """

    trackers: tuple[str, ...] = field(default=(), converter=as_tuple, validator=names_or_none())
    project: str = field(default="d4k", validator=text())
    name: str | None = field(default=None, validator=optional(text()))
