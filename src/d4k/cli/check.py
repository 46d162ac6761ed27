"""`d4k check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

from d4k.errors import CheckpointError, D4KError, PluginError, UnknownNameError
from d4k.plugins import Entry, registry

__all__ = ["check"]

LACKING = ("dataset", "metric", "captioner")
"""Kinds whose files may be missing on a machine."""

Row = tuple[str, str, str]
"""What was checked, how it went ("ok", "failed" or "skipped"), and why."""


@click.command()
@click.argument("plugin", required=False)
@click.option("--model", help="Check backbones on this model: a folder, a Hub id or a registered checkpoint.")
@click.pass_context
def check(ctx: click.Context, plugin: str | None, model: str | None) -> None:
    """Run the contracts of everything that PLUGIN registers, or that all plugins do.

    Components are made with their default options; those that need some are skipped. So is a metric or a captioner
    whose weights are not on this machine. A backbone is checked on the checkpoints that are registered for
    it and lie on this machine, or on --model. The exit code is 1 when a contract does not hold.

    \b
    Example:
      d4k check d4k-wavelet
    """
    failed = 0
    for what, status, reason in _rows(_entries(plugin), model):
        click.echo(f"{status:8} {what}{': ' + ' '.join(reason.split()) if reason else ''}")
        failed += status == "failed"
    if failed:
        click.echo(f"{failed} contract{'s do' if failed > 1 else ' does'} not hold")
        ctx.exit(1)


def _entries(plugin: str | None) -> list[Entry]:
    """What a plugin registered; its distribution may be named with or without `d4k-`."""
    names = registry()
    every = [entry for entries in names.entries.values() for entry in entries]
    if plugin is None:
        return sorted(every, key=lambda entry: (entry.plugin, entry.kind, entry.name))
    spelt = (plugin, f"d4k-{plugin}")
    for name, reason in names.failures.items():
        if name in spelt:
            raise PluginError(f"plugin {name} did not load: {reason}", [name])
    chosen = [entry for entry in every if entry.plugin in spelt]
    if not chosen:
        raise UnknownNameError("plugin", plugin, {entry.plugin for entry in every}, "Try: d4k plugins")
    return sorted(chosen, key=lambda entry: (entry.kind, entry.name))


def _rows(entries: list[Entry], model: str | None) -> Iterator[Row]:
    for entry in entries:
        if entry.kind == "backbone":
            yield from _backbone(entry, model)
        elif entry.kind != "checkpoint":
            yield _component(entry)


def _component(entry: Entry) -> Row:
    import attrs

    from d4k import testing
    from d4k.plugins import build

    checks: dict[str, Callable[[Any], None]] = {
        "loss": testing.check_loss,
        "metric": testing.check_metric,
        "dataset": testing.check_dataset,
        "upscaler": testing.check_upscaler,
        "filter": testing.check_filter,
        "captioner": testing.check_captioner,
    }
    what = f"{entry.kind} {entry.name}"
    try:
        cls = entry.load()
    except PluginError as error:
        return what, "failed", str(error)
    fields = attrs.fields(cls) if attrs.has(cls) else ()
    needed = [field.alias for field in fields if field.init and field.default is attrs.NOTHING]
    if needed:
        return what, "skipped", f"it needs options: {', '.join(needed)}; call check_{entry.kind} in a test"
    return _outcome(what, lambda: checks[entry.kind](build(entry, {})), lacking=entry.kind in LACKING)


def _backbone(entry: Entry, model: str | None) -> Iterator[Row]:
    models = [model] if model is not None else _local(entry.name)
    if not models:
        yield f"backbone {entry.name}", "skipped", "no checkpoint of it lies on this machine; give --model"
    for name in models:
        yield _outcome(f"backbone {entry.name} on {name}", lambda name=name: _check_on(entry, name), lacking=True)  # type: ignore[misc]


def _local(backbone: str) -> list[str]:
    """The registered checkpoints of a backbone whose files are here."""
    from pathlib import Path

    every = [entry for entries in registry().entries.values() for entry in entries]
    return sorted(
        entry.name
        for entry in every
        if entry.kind == "checkpoint"
        and entry.backbone == backbone
        and (not entry.target or Path(entry.target).is_dir())
    )


def _check_on(entry: Entry, model: str) -> None:
    from d4k.pipeline import Pipeline
    from d4k.testing import check_backbone

    backbone = Pipeline.from_pretrained(model, device="cpu").backbone
    if not isinstance(backbone, entry.load()):
        raise CheckpointError(f"{model} is a model of another backbone, {type(backbone).__name__}")
    check_backbone(backbone)


def _outcome(what: str, run: Callable[[], None], *, lacking: bool) -> Row:
    """Run a check; `lacking` says that files may be missing here, which is no fault of the plugin."""
    try:
        run()
    except AssertionError as error:
        if lacking and isinstance(error.__cause__, D4KError):
            return what, "skipped", str(error.__cause__)
        return what, "failed", str(error)
    except D4KError as error:
        return what, "skipped" if lacking else "failed", str(error)
    return what, "ok", ""
