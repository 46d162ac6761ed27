"""`d4k.json`: which backbone a model or an adapter belongs to, its options, and what it was trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from d4k.errors import CheckpointError
from d4k.files import write_json
from d4k.models.hub import fetch_file
from d4k.models.reference import ModelRef, Training
from d4k.plugins import registry

__all__ = ["CARD", "Card", "fetch_json", "read_card", "write_card"]

CARD = "d4k.json"
"""Beside a model's `model_index.json`, or an adapter's weights."""

FORMAT = 1


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
        CheckpointError: it is unreadable, or of a newer format.
    """
    data = fetch_json(model, CARD, revision) or {}
    if data.get("format", FORMAT) != FORMAT:
        raise CheckpointError(f"{model}/{CARD} has format {data['format']}; this d4k reads format {FORMAT}: update d4k")
    for key in ("options", "training"):
        if not isinstance(data.get(key, {}), dict):
            raise CheckpointError(f"{model}/{CARD} must hold a table under '{key}', got {data[key]!r}")
    base = None
    if "base" in data:
        base = ModelRef(data["base"], data.get("revision"), data.get("variant"), data.get("transformer"))
    return Card(data.get("backbone", ""), data.get("options", {}), Training(**data.get("training", {})), base)


def fetch_json(model: str, name: str, revision: str | None = None) -> dict[str, Any] | None:
    """A JSON object of a model, in its folder or on the Hub; None where there is no such file.

    Raises:
        CheckpointError: it is not readable, or not an object.
    """
    folder = Path(model)
    path = folder / name if folder.is_dir() else fetch_file(model, name, revision)
    if path is None or not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def write_card(folder: Path, card: Card) -> None:
    """Write `d4k.json`, so that the model is loaded again with the same backbone and options.

    Args:
        folder: of a model or an adapter.
        card: what it is to say; the name of a base that is on this disk becomes an absolute path.
    """
    data: dict[str, Any] = {"format": FORMAT, "backbone": card.backbone, "options": dict(card.options)}
    training = {**card.training.sampling, "options": dict(card.training.options)}
    if card.training != Training():
        data["training"] = {name: value for name, value in training.items() if value != {}}
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
