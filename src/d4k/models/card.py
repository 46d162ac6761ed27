"""`d4k.json`: which backbone a model or an adapter belongs to, its options, and what it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, field, frozen

from d4k.errors import CheckpointError
from d4k.files import is_file, is_folder, write_json
from d4k.models.configs import read_config
from d4k.models.hub import fetch_file
from d4k.models.reference import ModelRef, Training
from d4k.plugins import registry
from d4k.records import FORMAT, CardRecord, read_record

__all__ = ["CARD", "Card", "fetch_json", "read_card", "write_card"]

CARD = "d4k.json"
"""Beside a model's `model_index.json`, or an adapter's weights."""


@frozen
class Card:
    """What `d4k.json` says.

    Args:
        backbone: registered name; empty where it is not said.
        options: of the backbone.
        training: what the weights were trained with.
        base: of an adapter, the model it was trained on.
    """

    backbone: str = ""
    options: Mapping[str, Any] = field(factory=dict)
    training: Training = field(factory=Training)
    base: ModelRef | None = None


def read_card(model: str, revision: str | None = None) -> Card:
    """What `write_card` wrote into a folder or Hub repository; an empty card where there is none.

    Raises:
        CheckpointError: it is unreadable, of a newer format, or a value in it is not allowed.
    """
    data = fetch_json(model, CARD, revision) or {}
    if isinstance(data.get("format"), int) and data["format"] > FORMAT:
        raise CheckpointError(f"{model}/{CARD} has format {data['format']}; this d4k reads format {FORMAT}: update d4k")
    record = read_record(CardRecord, data, f"{model}/{CARD}", CheckpointError)
    base = None
    if record.base is not None:
        base = ModelRef(record.base, record.revision, record.variant, record.transformer)
    training = Training(**attrs.asdict(record.training))
    return Card(record.backbone, record.options, training, base)


def fetch_json(model: str, name: str, revision: str | None = None) -> dict[str, Any] | None:
    """A JSON object of a model, in its folder or on the Hub; None where there is no such file.

    Raises:
        CheckpointError: it is not readable, or not an object.
    """
    folder = Path(model)
    path = folder / name if is_folder(folder, CheckpointError) else fetch_file(model, name, revision)
    if path is None or not is_file(path, CheckpointError):
        return None
    return read_config(path, finite=name == CARD)


def write_card(folder: Path, card: Card) -> None:
    """Write `d4k.json`, so that the model is loaded again with the same backbone and options.

    Args:
        folder: of a model or an adapter.
        card: what it is to say; the name of a base that is on this disk becomes an absolute path.
    """
    data: dict[str, Any] = {"format": FORMAT, "backbone": card.backbone, "options": dict(card.options)}
    training = {**card.training.sampling, "options": dict(card.training.options), "ema": card.training.ema}
    if card.training != Training():
        data["training"] = {name: value for name, value in training.items() if value not in ({}, None)}
    if card.base is not None:
        base = evolve(card.base, name=_absolute(card.base.name))
        if base.transformer is not None:
            base = evolve(base, transformer=_absolute(base.transformer))
        data |= {"base": base.name, **base.files}
    write_json(folder / CARD, data)


def _absolute(name: str) -> str:
    """A name that is valid from every folder."""
    registered = ("checkpoint", name) in registry().entries
    return name if registered or not Path(name).exists() else str(Path(name).resolve())
