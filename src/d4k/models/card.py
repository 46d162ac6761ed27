"""`d4k.json`: which backbone a model or an adapter belongs to, its options, and what it was trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from d4k.errors import CheckpointError
from d4k.files import write_json
from d4k.models.hub import fetch_file
from d4k.models.reference import Training
from d4k.plugins import registry

__all__ = ["CARD", "FORMAT", "fetch_json", "read_card", "write_card"]

CARD = "d4k.json"
"""Beside a model's `model_index.json`: the backbone's name, its options, and what the model was trained with."""


FORMAT = 1


def read_card(model: str, revision: str | None = None) -> dict[str, Any]:
    """What `write_card` wrote into a folder or Hub repository; empty where there is none.

    Raises:
        CheckpointError: it is unreadable, or of a newer format.
    """
    card = fetch_json(model, CARD, revision) or {}
    if card.get("format", FORMAT) != FORMAT:
        raise CheckpointError(f"{model}/{CARD} has format {card['format']}; this d4k reads format {FORMAT}: update d4k")
    for key in ("options", "training"):
        if not isinstance(card.get(key, {}), dict):
            raise CheckpointError(f"{model}/{CARD} must hold a table under '{key}', got {card[key]!r}")
    return card


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


def write_card(
    folder: Path,
    backbone: str,
    options: Mapping[str, Any],
    *,
    training: Training | None = None,
    base: str | None = None,
    base_loaded_with: Mapping[str, str | None] | None = None,
) -> None:
    """Write `d4k.json`, so that the model is loaded again with the same backbone and options.

    Args:
        folder: of a model or an adapter.
        backbone: registered name.
        options: of the backbone.
        training: how the model was trained; None is not known.
        base: for an adapter, the model it was trained on; what is on this disk is recorded by its absolute path.
        base_loaded_with: for an adapter, those of `LOADED_WITH` that the model was loaded with.
    """
    card: dict[str, Any] = {"format": FORMAT, "backbone": backbone, "options": dict(options)}
    if training is not None and (known := _known(training)):
        card["training"] = known
    if base is not None:
        card["base"] = _absolute(base)
    given = {name: value for name, value in (base_loaded_with or {}).items() if value is not None}
    if "transformer" in given:
        given["transformer"] = _absolute(given["transformer"])
    write_json(folder / CARD, card | given)


def _known(training: Training) -> dict[str, Any]:
    """What a training says, by name, without what it does not say."""
    return {name: value for name, value in attrs.asdict(training).items() if value is not None and value != {}}


def _absolute(name: str) -> str:
    """A name that is valid from every folder."""
    registered = ("checkpoint", name) in registry().entries
    return name if registered or not Path(name).exists() else str(Path(name).resolve())
