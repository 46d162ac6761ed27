"""`d4k.json`: which backbone a model or an adapter belongs to, its options, and what it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d4k.errors import CheckpointError
from d4k.files import is_file, is_folder, write_json
from d4k.models.configs import read_config
from d4k.models.hub import fetch_file
from d4k.plugins import registry
from d4k.records import FORMAT, CardRecord, read_record

__all__ = ["CARD", "FORMAT", "fetch_json", "read_card", "write_card"]

CARD = "d4k.json"
"""Beside a model's `model_index.json`: the backbone's name, its options, and what the model was trained with."""


def read_card(model: str, revision: str | None = None) -> dict[str, Any]:
    """What `write_card` wrote into a folder or Hub repository; empty where there is none.

    Raises:
        CheckpointError: it is unreadable, of a newer format, or a value in it is not allowed.
    """
    card = fetch_json(model, CARD, revision) or {}
    if isinstance(card.get("format"), int) and card["format"] > FORMAT:
        raise CheckpointError(f"{model}/{CARD} has format {card['format']}; this d4k reads format {FORMAT}: update d4k")
    read_record(CardRecord, card, f"{model}/{CARD}", CheckpointError)
    return {name: value for name, value in card.items() if value is not None}


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


def write_card(
    folder: Path,
    backbone: str,
    options: Mapping[str, Any],
    *,
    training: Mapping[str, Any] | None = None,
    base: str | None = None,
    base_loaded_with: Mapping[str, str | None] | None = None,
) -> None:
    """Write `d4k.json`, so that the model is loaded again with the same backbone and options.

    Args:
        folder: of a model or an adapter.
        backbone: registered name.
        options: of the backbone.
        training: what the model was trained with; see `d4k.training.trained_with`.
        base: for an adapter, the model it was trained on; what is on this disk is recorded by its absolute path.
        base_loaded_with: for an adapter, those of `LOADED_WITH` that the model was loaded with.
    """
    card: dict[str, Any] = {"format": FORMAT, "backbone": backbone, "options": dict(options)}
    if training:
        card["training"] = dict(training)
    if base is not None:
        card["base"] = _absolute(base)
    given = {name: value for name, value in (base_loaded_with or {}).items() if value is not None}
    if "transformer" in given:
        given["transformer"] = _absolute(given["transformer"])
    write_json(folder / CARD, card | given)


def _absolute(name: str) -> str:
    """A name that is valid from every folder."""
    registered = ("checkpoint", name) in registry().entries
    return name if registered or not Path(name).exists() else str(Path(name).resolve())
