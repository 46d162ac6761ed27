"""What measuring a set of pictures leaves: scores, a line a picture, and what was wrong with files.

DIR/
  scores.json        all of it, as `Evaluation`
  rows/              the rows of the pictures, for resuming and for comparisons
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import field, frozen

from d4k.errors import DataError
from d4k.files import is_folder, read_json, write_json
from d4k.protocols import Score

__all__ = ["FORMAT", "SCORES", "Evaluation", "Fault", "Picture", "plain", "read_evaluation", "write_evaluation"]

SCORES = "scores.json"
FORMAT = 2
"""Of `scores.json`."""

HUGE = 1e100
"""No figure is larger: spans and squares of what is read stay finite."""


@frozen
class Picture:
    """One picture that was measured.

    Args:
        id: unique within its set; pairs the picture with that of another set where there are no prompts.
        file: path, relative to the folder of `scores.json` where it is below or beside it.
        sha256: of the file, in hexadecimal.
        width: pixels, upright.
        height: likewise.
        prompt: what it should show; None where it is not known.
        seed: it was sampled with; None where it is not known.
        reference: path of its reference picture, as `file`; None where there is none.
        values: the score of this picture alone by metric; without metrics of whole sets.
        keys: by metric, the key of its row in the store.
    """

    id: str
    file: str
    sha256: str
    width: int
    height: int
    prompt: str | None = None
    seed: int | None = None
    reference: str | None = None
    values: Mapping[str, float] = field(factory=dict)
    keys: Mapping[str, str] = field(factory=dict)


@frozen
class Fault:
    """Something about a file of the set.

    Args:
        file: path, as `Picture.file`.
        kind: "missing", "empty", "unreadable", "truncated", "giant", "duplicate", "unmeasurable" (left out); or
            "animated", "cmyk", "deep" (16 bits), "rotated" (measured, after the conversion that viewers make).
        reason: a sentence.
        left_out: whether the scores rest without it.
    """

    file: str
    kind: str
    reason: str
    left_out: bool


@frozen
class Evaluation:
    """One system measured.

    Args:
        name: of the system, such as the model's; a row of a table.
        scores: one a metric.
        pictures: those that were measured, in the order of the set.
        faults: what was wrong with files.
        references: keys of the rows of the set of reference pictures, by metric.
        rows: folder of the store of rows, relative to the folder of `scores.json`.
        about: whatever else a reader should know, such as the model, its size and licences; plain values.
    """

    name: str
    scores: tuple[Score, ...]
    pictures: tuple[Picture, ...] = ()
    faults: tuple[Fault, ...] = ()
    references: Mapping[str, tuple[str, ...]] = field(factory=dict)
    rows: str = "rows"
    about: Mapping[str, Any] = field(factory=dict)


def write_evaluation(folder: Path, evaluation: Evaluation) -> Path:
    """Write `scores.json`, whole or not at all.

    Args:
        folder: that it is written into; made where it is missing.
        evaluation: what it says.

    Returns:
        The path of the file.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json(folder / SCORES, {"format": FORMAT, **plain(evaluation)})
    return folder / SCORES


def read_evaluation(folder: Path) -> Evaluation:
    """Read `scores.json`, whoever wrote it.

    Args:
        folder: that it lies in, or the file itself.

    Raises:
        DataError: it cannot be read, or is not of this format; the message says where.
    """
    path = folder / SCORES if is_folder(folder, DataError) else folder
    data = read_json(path, DataError)
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, Mapping) else None
        raise DataError(
            f"{path} has format {found!r}, and this d4k reads {FORMAT}: write it anew with d4k evaluate --output", path
        )
    evaluation = _record(Evaluation, data, f"{path}")
    names = [score.metric for score in evaluation.scores]
    if len(set(names)) != len(names):
        raise DataError(f"{path}: two scores are of the same metric", path)
    for number, picture in enumerate(evaluation.pictures):
        if fault := _wrong(picture):
            raise DataError(f"{path}: pictures[{number}].{fault}", path)
    if any(not KEY.fullmatch(key) for keys in evaluation.references.values() for key in keys):
        raise DataError(f"{path}: references hold something that is no key of a row", path)
    return evaluation


KEY, SHA256 = re.compile(r"(?:[0-9a-f]{2}){8,64}"), re.compile(r"[0-9a-f]{64}")


def _wrong(picture: Picture) -> str:
    """What cannot be true of a picture; empty where all may be."""
    if not SHA256.fullmatch(picture.sha256):
        return f"sha256 must be 64 hexadecimal digits, got {picture.sha256[:80]!r}"
    if min(picture.width, picture.height) < 1:
        return f"width and height must be at least 1, got {picture.width}x{picture.height}"
    bad = next((key for key in picture.keys.values() if not KEY.fullmatch(key)), None)
    return "" if bad is None else f"keys hold {bad[:80]!r}, which is no key of a row"


def plain(value: Any) -> Any:
    """A value as JSON has it, which knows neither NaN nor infinity: None in their place."""
    if attrs.has(type(value)):
        return {option.name: plain(getattr(value, option.name)) for option in attrs.fields(type(value))}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(inner) for inner in value), key=repr)
    return [plain(inner) for inner in value] if isinstance(value, Sequence) else str(value)


Record = TypeVar("Record")


def _record(cls: type[Record], data: Any, where: str) -> Record:
    """Plain values as a frozen class of typed fields; a key that it does not have is passed over."""
    if not isinstance(data, Mapping):
        raise DataError(f"{where} must be an object, got {type(data).__name__}")
    hints, values = get_type_hints(cls), {}
    for option in attrs.fields(cls):  # type: ignore[arg-type]
        place = f"{where}: {option.name}" if cls is Evaluation else f"{where}.{option.name}"
        if option.name in data:
            values[option.name] = _typed(hints[option.name], data[option.name], place)
        elif option.default is attrs.NOTHING:
            raise DataError(f"{place} is missing")
    return cls(**values)


def _typed(hint: Any, value: Any, where: str) -> Any:
    """A plain value as a type says: a record, a tuple, a mapping or one of the simple types."""
    if hint is Any:
        return value
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else _typed(next(one for one in inner if one is not type(None)), value, where)
    if attrs.has(hint):
        return _record(hint, value, where)
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(_typed(kind, one, f"{where}[{place}]") for place, (kind, one) in pairs)
    elif isinstance(origin, type) and issubclass(Mapping, origin) and isinstance(value, Mapping):
        return {key: _typed(inner[1], one, f"{where}.{key}"[:200]) for key, one in value.items()}
    elif hint is float and (value is None or (isinstance(value, int | float) and not isinstance(value, bool))):
        if value is not None and abs(value) > HUGE:
            raise DataError(f"{where} must be a number of at most {HUGE:g}, got {repr(value)[:80]}")
        return math.nan if value is None else float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise DataError(f"{where} must be {_words(hint)}, got {repr(value)[:80]}")


def _words(hint: Any) -> str:
    known = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    return known.get(hint) or ("a list" if get_origin(hint) is tuple else "an object")
