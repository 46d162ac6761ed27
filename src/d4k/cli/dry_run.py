"""What `d4k train --dry-run` prints: the run, a line a thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from d4k.errors import D4KError

if TYPE_CHECKING:
    from d4k.training import DryRun

__all__ = ["lines"]

NAMED = 3
"""Pictures of each reason that are named."""


def lines(run: DryRun) -> Iterator[str]:
    """The plan of a run, for a person who is about to start it.

    Args:
        run: what came out of going through it dry.
    """
    config = run.config
    yield f"dry run of {config.output_dir}: nothing was trained, and nothing was written there"
    yield ""
    yield _row("model", config.model)
    yield _row("trained", _trained(run))
    if run.done:
        yield _row("resumes", f"after step {run.done:,} of {config.training.steps:,}")
    yield from _differences(run)
    yield ""
    yield from _pictures(run)
    yield ""
    yield from _steps(run)
    yield ""
    yield from _memory(run)
    yield from _disk(run)
    yield from _time(run)


def _trained(run: DryRun) -> str:
    if run.config.adapter is None:
        return f"all {run.numbers:,} parameters of the denoiser"
    share = f"{run.trained / run.numbers:.1%} of the denoiser's {run.numbers:,}"
    return f"an adapter of {run.trained:,} parameters, {share}"


def _differences(run: DryRun) -> Iterator[str]:
    for number, said in enumerate(run.deviations):
        yield _row("" if number else "differs", said)


def _pictures(run: DryRun) -> Iterator[str]:
    chosen = run.chosen
    total = len(chosen.dataset) + len(run.unusable)
    yield _row("pictures", f"{chosen.count:,} of {total:,} of '{run.config.dataset.name}'")
    held = sum(len(bucket.held_out) for bucket in chosen.buckets)
    if held:
        yield _row("held out", f"{held:,}, to measure the loss on")
    yield from _named("unusable", run.unusable)
    for reason in dict.fromkeys(picture.reason for picture in chosen.left_out):
        named = [f"{picture.id}: {picture.why}" for picture in chosen.left_out if picture.reason == reason]
        yield from _named("left out", named)
    yield from _named("enlarged", chosen.enlarged)
    yield _row("cut to", f"{'width x height':<16}{'pictures':>12}{'tokens':>12}")
    for bucket, tokens in zip(chosen.buckets, run.tokens, strict=True):
        size = f"{bucket.width} x {bucket.height}"
        yield _row("", f"{size:<16}{len(bucket.pictures):>12,}{tokens:>12,}")


def _named(what: str, names: list[str] | tuple[str, ...]) -> Iterator[str]:
    """How many there are, and the first of them."""
    if not names:
        return
    first = names[:NAMED]
    yield _row(what, f"{len(names):,}, {'the first of them' if len(names) > len(first) else 'which are'}:")
    for name in first:
        yield _row("", f"  {name}")


def _steps(run: DryRun) -> Iterator[str]:
    training = run.config.training
    factors = [_many(training.batch_size, "picture"), _many(training.accumulation, "pass")]
    factors.append(_many(run.processes, "process") + (f" ({run.strategy})" if run.processes > 1 else ""))
    yield _row("a step", f"{_many(run.pictures_a_step, 'picture')} = {' x '.join(factors)}")
    yield _row("an epoch", f"{run.steps_an_epoch:,.1f} steps")
    yield _row("the run", f"{training.steps:,} steps = {run.epochs:,.1f} epochs")


def _memory(run: DryRun) -> Iterator[str]:
    from d4k.machine import free_bytes

    try:
        way, planned = _planned(run)
    except D4KError as error:
        yield _row("memory", f"not planned: {error}")
    else:
        yield _row("memory", f"{_size(planned)} each process as planned, {way}")
    if run.peak is not None:
        yield _row("", f"{_size(run.peak)} as measured on {run.device} in these steps")
    yield _row("", f"{_size(free_bytes(run.device))} are free on {run.device} now")


def _planned(run: DryRun) -> tuple[str, int]:
    """How activations are held, and what each process holds at most with that."""
    from attrs import evolve

    from d4k.planning import of_run, plan

    ref, generation, training = of_run(run.config)
    width, height = run.chosen.largest
    found = plan(ref, evolve(generation, width=width, height=height), evolve(training, processes=run.processes))
    assert found.training is not None
    way = "gradient checkpointing" if run.config.training.gradient_checkpointing else "all activations kept"
    return way, found.training.peaks[way]


def _disk(run: DryRun) -> Iterator[str]:
    disk, result = run.disk, "the trained model" if run.config.adapter is None else "the adapter"
    stay = f" at once, {disk.left:,} in the end" if disk.at_once > 1 else ""
    yield _row("checkpoints", f"{disk.at_once:,} of {_size(disk.checkpoint)}{stay}")
    yield _row("disk", f"{_size(disk.needed)} at most; {result} is {_size(disk.result)}")
    yield _row("", f"{_size(run.free)} are free there now")
    if run.cache is not None:
        yield _row("cache", f"{_size(run.cache[1])} in {run.cache[0]}")


def _time(run: DryRun) -> Iterator[str]:
    each = f"{min(run.seconds):,.2f} to {max(run.seconds):,.2f} s"
    yield _row("time a step", f"{run.step_seconds:,.2f} s, the median of {len(run.seconds)} ({each})")
    left = run.config.training.steps - run.done
    yield _row("in all", f"{_duration(left * run.step_seconds)} for {_many(left, 'step')}")
    yield _row("", "without checkpoints and validation")


def _row(name: str, said: str) -> str:
    return f"{name:<14}{said}"


def _many(count: int, word: str) -> str:
    """A number of things.

    >>> _many(1, "pass"), _many(2000, "pass"), _many(2, "step")
    ('1 pass', '2,000 passes', '2 steps')
    """
    return f"{count:,} {word}{'' if count == 1 else 'es' if word.endswith('s') else 's'}"


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    """Seconds in the two largest units that they fill.

    >>> _duration(59.4), _duration(3660), _duration(200_000)
    ('59 s', '1 h 1 min', '2 d 7 h')
    """
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    first = next((at for at, (_, size) in enumerate(units) if whole >= size), len(units) - 1)
    parts = []
    for name, size in units[first : first + 2]:
        parts.append(f"{whole // size} {name}")
        whole %= size
    return " ".join(part for number, part in enumerate(parts) if number == 0 or not part.startswith("0 "))
