"""`d4k plugins`."""

from __future__ import annotations

import click

__all__ = ["plugins"]


@click.command()
def plugins() -> None:
    """List what is registered, and what failed to load and why.

    \b
    Example:
      d4k plugins
    """
    from d4k.plugins import registry

    names = registry()
    rows = [("kind", "name", "plugin", "version", "summary")]
    for entries in names.entries.values():
        rows += [(e.kind, e.name, e.plugin, e.version, e.summary) for e in entries]
    rows[1:] = sorted(rows[1:])
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))
    problems = [f"{plugin} did not load: {reason}" for plugin, reason in names.failures.items()] + names.clashes()
    if problems:
        click.echo("\nProblems:")
    for problem in problems:
        click.echo(f"  {problem}")
