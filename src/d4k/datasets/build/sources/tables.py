"""Tables of paths or URLs: Parquet and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from d4k.datasets.build.extras import need_pyarrow
from d4k.datasets.build.sources.rows import NAMES, read_row
from d4k.datasets.build.values import Listed
from d4k.errors import DataError

__all__ = ["ENDINGS", "list_table"]

ENDINGS = (".parquet", ".csv")
KNOWN = frozenset(name for names in NAMES.values() for name in names)


def list_table(table: Path, label: str) -> Iterator[Listed]:
    """The pictures that a table names, in its order.

    Args:
        table: Parquet or CSV with a column `path` or `url`, and optionally `licence`, `author`, `source` and `text`.
            Paths are relative to its folder.
        label: begins each id.

    Raises:
        DataError: it cannot be read, or has neither column.
    """
    folder = table.absolute().parent
    for number, values in enumerate(_rows(table), start=1):
        row = read_row(values)
        more = {"licence": row.licence, "author": row.author, "source": row.source, "text": row.text}
        if row.path is not None:
            yield Listed(f"{label}/{Path(row.path).as_posix().lstrip('/')}", folder / row.path, row.url, **more)
        elif row.url is not None:
            yield Listed(f"{label}/{row.url.partition('://')[2] or row.url}", None, row.url, **more)
        else:
            yield Listed(f"{label}/row {number}", None, problem=f"row {number} has neither a path nor a URL", **more)


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    rows = _parquet(table) if table.suffix.lower() == ".parquet" else _csv(table)
    try:
        yield from rows
    except DataError:
        raise
    except Exception as error:  # pyarrow raises its own errors, the csv module csv.Error, and both OSError
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"table {table} cannot be read: {reason}", table) from error


def _parquet(table: Path) -> Iterator[dict[str, Any]]:
    need_pyarrow()
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with ParquetFile(table) as file:
        schema = file.schema_arrow
        _check_columns(table, schema.names)
        columns = [name for name in schema.names if name in KNOWN]
        nested = [name for name in columns if pyarrow.types.is_nested(schema.field(name).type)]
        if nested:
            raise DataError(
                f"column '{nested[0]}' of {table} holds {schema.field(nested[0]).type}, not text; "
                "a Parquet that holds the pictures themselves is read with: d4k data import",
                table,
            )
        for batch in file.iter_batches(1024, columns=columns):
            yield from batch.to_pylist()


def _csv(table: Path) -> Iterator[dict[str, Any]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        _check_columns(table, reader.fieldnames or ())
        yield from reader


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    if not {*NAMES["path"], *NAMES["url"]} & set(columns):
        raise DataError(
            f"table {table} has the columns {', '.join(columns) or 'none'}; it needs one of "
            f"{', '.join((*NAMES['path'], *NAMES['url']))}. Pictures within a Parquet are read with: d4k data import",
            table,
        )
