"""The JSON files of a model, which diffusers and transformers take at their word: read, and kept within reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from d4k.errors import CheckpointError
from d4k.files import read_json

__all__ = ["read_config"]

COUNTED = re.compile(r"layers|blocks|depth|experts|timesteps")
"""Settings that say how many modules or noise levels are made, one by one: a wild number would take for ever."""

MOST = 100_000


def read_config(path: Path, *, finite: bool = False) -> dict[str, Any]:
    """A JSON object of a model: its index, its `d4k.json`, or the configuration of a part.

    Args:
        path: of the file.
        finite: refuse NaN and infinity; some configurations of transformers hold them.

    Raises:
        CheckpointError: it cannot be read, is not an object, or asks for more modules than any model has.
    """
    data = read_json(path, CheckpointError, finite=finite)
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    for name, value in data.items():
        if COUNTED.search(name) and isinstance(value, int | float) and not value <= MOST:
            raise CheckpointError(f"{path} asks for {name} = {value}; no model has more than {MOST}")
    return data
