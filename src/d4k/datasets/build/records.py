"""What a build writes beside the pictures: `metadata.jsonl`, `decisions.parquet` and `build.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from d4k import __version__
from d4k.datasets.build.figures import Chosen, options_of
from d4k.datasets.build.place import FOLDERS
from d4k.datasets.build.settings import BuildSettings
from d4k.datasets.build.splits import EVAL, TRAIN
from d4k.datasets.build.values import Decision
from d4k.errors import DataError
from d4k.files import atomic_file, read_bytes, read_json_line, write_json, write_text

__all__ = ["BUILD", "DECISIONS", "FORMAT", "METADATA", "Counts", "write_records"]

FORMAT = 1
"""Of `build.json` and `decisions.parquet`: raised when an older d4k must not read them."""

METADATA, DECISIONS, BUILD = "metadata.jsonl", "decisions.parquet", "build.json"
OUTCOMES = ("kept", "apart", "rejected", "broken")


@frozen
class Counts:
    """How many pictures came to what.

    Args:
        outcomes: of all pictures, by outcome.
        splits: of those that were kept, by split.
        reasons: of those that were rejected, by filter in the order in which they are asked, and by "duplicates".
        others: files in the sources that are no pictures, by their ending.
    """

    outcomes: Mapping[str, int]
    splits: Mapping[str, int]
    reasons: Mapping[str, int]
    others: Mapping[str, int]

    @classmethod
    def of(cls, decisions: Sequence[Decision], chosen: Sequence[Chosen], others: Mapping[str, int]) -> Counts:
        """Count decisions."""
        outcomes: Counter[str] = Counter(decision.outcome for decision in decisions)
        splits = Counter(decision.split for decision in decisions if decision.outcome == "kept")
        reasons = Counter(decision.filter for decision in decisions if decision.filter)
        names = [*(one.name for one in chosen), "duplicates"]
        return cls(
            {name: outcomes[name] for name in OUTCOMES},
            {name: splits[name] for name in (TRAIN, EVAL)},
            {name: reasons[name] for name in names},
            dict(sorted(others.items())),
        )


def write_records(
    folder: Path, decisions: Sequence[Decision], chosen: Sequence[Chosen], settings: BuildSettings, counts: Counts
) -> None:
    """Write all records; each appears whole. Texts that `metadata.jsonl` has already stay where a source has none.

    Raises:
        OutputError: the disk is full.
        DataError: a `metadata.jsonl` that is there cannot be read.
    """
    texts = _texts(folder)
    for split in FOLDERS:
        rows = [_row(d, split, texts) for d in decisions if d.file_name.startswith(f"{split}/")]
        if rows or split in (TRAIN, EVAL) or (folder / split).exists():
            write_text(folder / split / METADATA, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _write_decisions(folder / DECISIONS, decisions, chosen)
    filters = {one.name: {"options": options_of(one.filter), "figures": dict(one.filter.figures)} for one in chosen}
    own = attrs.asdict(settings, filter=lambda field, _: field.name not in ("filters", "default_filters"))
    write_json(
        folder / BUILD,
        {"format": FORMAT, "d4k": __version__, **own, "filters": filters, "counts": attrs.asdict(counts)},
    )


def _row(decision: Decision, split: str, texts: Mapping[str, str]) -> dict[str, Any]:
    listed, seen = decision.listed, decision.seen
    values = {
        "file_name": decision.file_name.removeprefix(f"{split}/"),
        "text": listed.text or texts.get(seen.sha256),
        "width": seen.width,
        "height": seen.height,
        "sha256": seen.sha256,
        "licence": listed.licence,
        "author": listed.author,
        "source": listed.source or listed.url,
    }
    return {key: value for key, value in values.items() if value is not None}


def _texts(folder: Path) -> dict[str, str]:
    """Digest -> text of the pictures of an earlier build, which may have been captioned since."""
    texts = {}
    for split in FOLDERS:
        file = folder / split / METADATA
        if not file.is_file():
            continue
        for number, line in enumerate(read_bytes(file, DataError).split(b"\n"), start=1):
            if line.strip():
                row = read_json_line(line, file, number)
                if isinstance(row.get("text"), str) and row["text"]:
                    texts[str(row.get("sha256"))] = row["text"]
    return texts


def _write_decisions(path: Path, decisions: Sequence[Decision], chosen: Sequence[Chosen]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def text(values: Sequence[str | None]) -> pa.Array:
        return pa.array([_utf8(value) if value else None for value in values], pa.string())

    def whole(values: Sequence[int]) -> pa.Array:
        return pa.array([value or None for value in values], pa.int64())

    columns = {
        "id": text([d.listed.id for d in decisions]),
        "path": text([str(d.listed.path) if d.listed.path else None for d in decisions]),
        "url": text([d.listed.url for d in decisions]),
        "sha256": text([d.seen.sha256 for d in decisions]),
        "bytes": pa.array([d.seen.bytes if d.seen.sha256 else None for d in decisions], pa.int64()),
        "width": whole([d.seen.width for d in decisions]),
        "height": whole([d.seen.height for d in decisions]),
        "format": text([d.seen.format for d in decisions]),
        "licence": text([d.listed.licence for d in decisions]),
        "author": text([d.listed.author for d in decisions]),
        "source": text([d.listed.source for d in decisions]),
        "fingerprint": text([d.seen.fingerprint for d in decisions]),
    }
    for one in chosen:
        for figure in one.filter.figures:
            values = [d.seen.figures.get(one.name, {}).get(figure) for d in decisions]
            columns[f"{one.name}.{figure}"] = pa.array(values, pa.float64())
    columns |= {
        "decision": text([d.outcome for d in decisions]),
        "reason": text([d.reason for d in decisions]),
        "filter": text([d.filter for d in decisions]),
        "duplicate_of": text([d.duplicate_of for d in decisions]),
        "split": text([d.split for d in decisions]),
        "file_name": text([d.file_name for d in decisions]),
    }
    table = pa.table(columns).replace_schema_metadata({"d4k": json.dumps({"format": FORMAT, "version": __version__})})
    with atomic_file(path) as temporary:
        parquet.write_table(table, temporary)


def _utf8(value: str) -> str:
    """Text that a table can hold: a file's name may have bytes that are no UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
