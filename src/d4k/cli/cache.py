"""`d4k cache`: filling the cache of a run, and looking after caches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from d4k.cli.placement import placement_options
from d4k.cli.train import read_settings

__all__ = ["cache"]

DEFAULT = "fill"


class _Cache(click.Group):
    """A group whose command `fill` need not be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `fill` before what begins with no command."""
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Cache)
def cache() -> None:
    """Fill the cache of a run, or look after caches.

    A cache keeps the latents of pictures and the encoded captions, so that a run need not encode them at every step.
    d4k train fills it by itself; with d4k cache RUN.toml that is done beforehand, also by several processes at once.

    \b
    Example:
      d4k cache examples/train_tiny.toml
      d4k cache stats runs/d4k-cache
    """


@cache.command()
@click.argument("recipe", metavar="[RUN.toml]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting of RUN.toml, e.g. data.cache=/fast/cache. May be repeated.",
)
@placement_options("device", "memory_gb")
def fill(recipe: Path | None, settings: tuple[str, ...], device: str | None, memory_gb: float | None) -> None:
    """Encode what the run of RUN.toml needs and its cache lacks; the word fill may be left out.

    \b
    Example:
      d4k cache examples/train_tiny.toml --set data.width=512 --set data.height=512
    """
    from d4k.training import first_process, speaking_once
    from d4k.training.precache import cache_from_config

    with speaking_once():
        config = read_settings(recipe, settings)
    filled = cache_from_config(config, device=device, memory_gb=memory_gb)
    if not first_process():
        return
    for sentence in (*filled.notes, *filled.unreadable.values()):
        click.echo(sentence, err=True)
    each = filled.bytes // filled.encoded if filled.encoded else 0
    rows = {
        "pictures": f"{filled.pictures}",
        "latents encoded now": f"{filled.encoded}",
        "latents found": f"{filled.latents - filled.encoded}",
        "unreadable": f"{len(filled.unreadable)}",
        "captions encoded now": f"{filled.texts_encoded}",
        "captions found": f"{filled.captions - filled.texts_encoded}",
        "written": f"{_size(filled.bytes)}{f', {_size(each)} a picture' if each else ''}",
        "folder": str(filled.source.store.folder),
    }
    _print_table(list(rows.items()))


@cache.command()
@click.argument("folder", type=click.Path(path_type=Path))
def stats(folder: Path) -> None:
    """Say what the cache in FOLDER holds: entries and bytes, by what encoded them.

    \b
    Example:
      d4k cache stats runs/d4k-cache
    """
    from d4k.training.data.cache.upkeep import stats

    rows = [("kind", "encoded by", "dtype", "entries", "shards", "size", "an entry")]
    for part in stats(folder):
        group = part.group
        each = _size(part.bytes // part.entries) if part.entries else ""
        cells = (f"{part.entries}", f"{part.shards}", _size(part.bytes), each)
        rows.append((group.kind, group.model[:12], group.dtype, *cells))
    _print_table(rows)


@cache.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_context
def verify(ctx: click.Context, folder: Path) -> None:
    """Read everything in the cache in FOLDER and compare it with its checksums. The exit code is 1 if some is damaged.

    \b
    Example:
      d4k cache verify runs/d4k-cache
    """
    from d4k.training.data.cache.upkeep import verify

    sound, damages = verify(folder)
    click.echo(f"{sound} entries are as they were written")
    for damage in damages:
        where = f"{len(damage.entries)} damaged in shard {damage.shard}: " if damage.shard else ""
        click.echo(f"{where}{damage.why}")
    if any(damage.shard for damage in damages):
        click.echo(f"take them out with: d4k cache repair {folder}")
    if damages:
        ctx.exit(1)


@cache.command()
@click.argument("folder", type=click.Path(path_type=Path))
def repair(folder: Path) -> None:
    """Take out of the cache in FOLDER what is damaged; a run that needs it encodes it again.

    \b
    Example:
      d4k cache repair runs/d4k-cache
    """
    from d4k.training.data.cache.upkeep import repair

    sound, done = repair(folder)
    for sentence in done:
        click.echo(sentence)
    click.echo(f"{sound} entries remain")


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _size(count: int) -> str:
    """Bytes for a person."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
