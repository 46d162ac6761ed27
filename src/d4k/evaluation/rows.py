"""Rows: what each picture contributes to a metric, kept by what it depends on.

The key of a row is a digest of the picture's bytes, the prompt and the reference where the metric needs them, and the
metric's observation. So a picture is not measured twice, whichever set, folder or name it comes under, and metrics of
the same observation share their rows.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import field, frozen
from torch import Tensor

from d4k.errors import ConfigError, DataError
from d4k.evaluation.faults import Flaw, Look
from d4k.evaluation.result import Evaluation
from d4k.evaluation.statistics import version_of
from d4k.files import is_folder, parse_json
from d4k.protocols import Metric
from d4k.store import SHARDS, Group, Store, Words, digest

__all__ = ["FORMAT", "Observer", "Row", "find_observers", "open_rows", "read_references", "read_row", "read_rows"]

FORMAT = 1
"""Of rows: raised when one of an older d4k must not be used any more."""

ROW, FLAW = "row", "flaw"
"""Tensors of an entry: the row, or why there is none, as UTF-8."""

WORDS = Words(
    noun="rows",
    elsewhere="name another folder for the output",
    absent="measure again",
    damaged="Remove the folder {folder} and measure again",
    broken="remove that file: it is made again from the shards",
    again="are measured again when needed",
)

Row = Tensor | Flaw
"""A row (K, D), or why the picture has none."""


@frozen(eq=False)
class Observer:
    """A metric that observes, for all metrics of the same observation.

    Args:
        name: of the metric.
        metric: that observes.
        id: digest of its observation.
    """

    name: str
    metric: Metric
    id: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        facts = _observation(self.name, self.metric), sorted(self.inputs), _packages(self.metric)
        object.__setattr__(self, "id", digest(FORMAT, *facts))

    @property
    def inputs(self) -> frozenset[str]:
        """What `observe` is called with."""
        return frozenset(self.metric.needs) - {"references"}

    def key(self, look: Look, prompt: str | None = None, reference: Look | None = None) -> str:
        """The key of the row of a picture.

        Args:
            look: at the picture.
            prompt: of the picture; of no account where the metric needs none.
            reference: picture, likewise.
        """
        said = prompt if "prompt" in self.inputs else None
        other = reference.sha256 if reference is not None and "reference" in self.inputs else None
        return digest(FORMAT, look.sha256, said, other, self.id)

    def group(self, dtype: torch.dtype) -> Group:
        """The group of its rows."""
        return Group("rows", self.id, str(dtype).removeprefix("torch."))


def find_observers(metrics: Mapping[str, Metric]) -> dict[str, Observer]:
    """By name of the metric, who observes for it: the first of the same observation.

    Raises:
        ConfigError: a metric does not say what its rows depend on.
    """
    found: dict[str, Observer] = {}
    for name, metric in metrics.items():
        one = Observer(name, metric)
        found[name] = next((other for other in found.values() if other.id == one.id), one)
    return found


def open_rows(folder: Path) -> Store:
    """The store of rows in a folder, which is made where it is missing.

    Raises:
        DataError: the index is damaged, or of another version of d4k.
        OutputError: the folder cannot be written.
    """
    return Store(folder, WORDS)


def entry_of(row: Row) -> dict[str, Tensor]:
    """A row as an entry of the store."""
    if isinstance(row, Tensor):
        return {ROW: row}
    content = json.dumps({"kind": row.kind, "reason": row.reason}).encode()
    return {FLAW: torch.frombuffer(bytearray(content), dtype=torch.uint8)}


def read_row(store: Store, key: str, what: str) -> Row:
    """The row of a key, or why there is none.

    Args:
        store: that holds it.
        key: of the row.
        what: it is of, for messages.

    Raises:
        DataError: it is missing or damaged.
    """
    tensors = store.read(key, what)
    if ROW in tensors:
        return tensors[ROW]
    flaw = None
    with suppress(KeyError, TypeError, AttributeError, RuntimeError):
        said = parse_json(bytes(tensors[FLAW].tolist()), f"the entry of {what}", DataError)
        flaw = Flaw(said["kind"], said["reason"])
    if flaw is None:
        raise DataError(f"the entry of {what} in {store.folder} holds no row; remove that folder and measure again")
    return flaw


def read_rows(folder: Path, evaluation: Evaluation, metric: str) -> list[Tensor]:
    """The rows of one metric, in the order of `evaluation.pictures`.

    Args:
        folder: of `scores.json`.
        evaluation: that was read from it.
        metric: name of the metric.

    Returns:
        One (K, D) tensor a picture; (0, D) of a picture that this metric could not measure.

    Raises:
        DataError: the rows are missing or damaged, or are of no such metric.
    """
    keys = [picture.keys.get(metric) for picture in evaluation.pictures]
    if not any(keys):
        raise DataError(f"{folder} holds no rows of {metric}; measure it, or name another metric", folder)
    store = _existing(folder, evaluation)
    what = [f"picture {picture.id} ({metric})" for picture in evaluation.pictures]
    rows = [None if key is None else _row(store, key, words) for key, words in zip(keys, what, strict=True)]
    width = next(row.shape[1:] for row in rows if row is not None)
    kind = next(row.dtype for row in rows if row is not None)
    return [torch.empty(0, *width, dtype=kind) if row is None else row for row in rows]


def read_references(folder: Path, evaluation: Evaluation, metric: str) -> list[Tensor]:
    """The rows of the set of reference pictures of one metric, as `read_rows`; empty where it needs none."""
    keys: Iterable[str] = evaluation.references.get(metric, ())
    if not keys:
        return []
    store = _existing(folder, evaluation)
    return [_row(store, key, f"reference picture {number} ({metric})") for number, key in enumerate(keys, 1)]


def _row(store: Store, key: str, what: str) -> Tensor:
    row = read_row(store, key, what)
    if isinstance(row, Flaw):
        raise DataError(f"{what} has no row in {store.folder}: {row.reason}", store.folder)
    return row


def _existing(folder: Path, evaluation: Evaluation) -> Store:
    """The store that an evaluation names; none is made where there is none."""
    place = (folder if folder.is_dir() else folder.parent) / evaluation.rows
    if not evaluation.rows or not is_folder(place / SHARDS, DataError):
        raise DataError(f"the rows of {folder} are not in {place}; measure again with --output {folder}", place)
    return open_rows(place)


def _packages(metric: Metric) -> dict[str, str]:
    """The versions of what computes rows: another version may compute others."""
    return {package: version_of(package) for package in getattr(metric, "packages", ())}


def _observation(name: str, metric: Metric) -> Any:
    """All plain values that decide what a row of a metric is."""
    said = getattr(metric, "observation", None)
    if said is not None:
        return _plain(name, said)
    cls: Any = type(metric)
    fields = [option.name for option in attrs.fields(cls) if option.init] if attrs.has(cls) else vars(metric)
    options = {option: getattr(metric, option) for option in fields}
    return [f"{cls.__module__}.{cls.__qualname__}", _plain(name, options), _text(cls)]


def _text(cls: type) -> list[str]:
    """The code of a class and of what it inherits from, so that rows of a class that was changed are not found."""
    texts = []
    for part in cls.__mro__[:-1]:
        with suppress(OSError, TypeError):
            texts.append(inspect.getsource(part))
    return texts


def _plain(name: str, value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        ConfigError: it would be another value in another process, such as an object's address.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Path | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(name, inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(name, inner) for inner in value), key=repr)
    if isinstance(value, Sequence):
        return [_plain(name, inner) for inner in value]
    raise ConfigError(
        f"rows of {name} cannot be kept: it has an option that is no plain value, a {type(value).__name__}. Give the "
        "metric an `observation`, a mapping of what decides its rows"
    )
