"""Scores as tables and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from d4k.errors import ConfigError
from d4k.files import write_json, write_text
from d4k.protocols import Score

__all__ = ["ARROWS", "markdown_table", "score_table", "write_scores"]

ARROWS = {True: "higher is better", False: "lower is better", None: ""}


def score_table(rows: Mapping[str, Sequence[Score]]) -> str:
    """A plain-text table: one row a set of images, one column a metric.

    >>> print(score_table({"mine": [Score("glcm", 0.712, "bits", 3, True)]}))
          glcm [bits]
          higher is better
    mine  0.7120
    """
    header, notes, body = _cells(rows)
    lines = [header, notes, *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown_table(rows: Mapping[str, Sequence[Score]]) -> str:
    """The same table in Markdown, with the number of images and the settings below it."""
    header, notes, body = _cells(rows)
    titles = [f"{h} ({n})" if n else h for h, n in zip(header, notes, strict=True)]
    lines = ["| " + " | ".join(line) + " |" for line in (titles, ["---"] * len(header), *body)]
    foot = [f"- {s.metric}: {s.count} images, settings {dict(s.settings) or 'none'}" for s in next(iter(rows.values()))]
    return "\n".join([*lines, "", *foot]) + "\n"


def _cells(rows: Mapping[str, Sequence[Score]]) -> tuple[list[str], list[str], list[list[str]]]:
    header, notes = [""], [""]
    for score in next(iter(rows.values())):
        header += [f"{score.metric} [{score.unit}]" if score.unit else score.metric, *score.details]
        notes += [ARROWS[score.higher_is_better], *([""] * len(score.details))]
    body = [
        [name, *(f"{v:.4f}" for s in scores for v in (s.value, *s.details.values()))] for name, scores in rows.items()
    ]
    return header, notes, body


def write_scores(rows: Mapping[str, Sequence[Score]], path: Path) -> None:
    """Write scores as JSON or Markdown, by the ending of `path`.

    Raises:
        ConfigError: another ending.
        OutputError: the file cannot be written.
    """
    if path.suffix == ".json":
        write_json(
            path, {"format": 1, "scores": {name: [attrs.asdict(s) for s in scores] for name, scores in rows.items()}}
        )
    elif path.suffix == ".md":
        write_text(path, markdown_table(rows))
    else:
        raise ConfigError(f"cannot write scores to '{path.name}': the ending must be .json or .md")
