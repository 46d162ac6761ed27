"""The JSON files of a model, which diffusers and transformers take at their word: read, and kept within reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d4k.errors import CheckpointError
from d4k.files import read_json

__all__ = ["check_config", "read_config"]

LARGEST = (
    (re.compile(r"timesteps"), 100_000),
    (re.compile(r"layers|blocks|depth|experts|groups"), 4096),
    (re.compile(r"sample_size|pos_embed_max_size|image_size"), 2**14),
    (re.compile(r"vocab|position|axes_lens"), 2**24),
    (re.compile(r"dim|size|channels|heads|features|width|hidden|embed|d_model|d_ff|d_kv"), 2**20),
)
"""Settings of a configuration file by their name, and the most that any model would ask for."""


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that asks for more than any model has, before its model is made even without memory.

    Args:
        config: of a part of a model.
        where: what the message calls the file.

    Raises:
        CheckpointError: a number of layers, a width or a size is beyond all reason.
    """
    for name, value in config.items():
        most = next((most for pattern, most in LARGEST if pattern.search(str(name))), None)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, Mapping):
                check_config(number, where)
            elif most is not None and isinstance(number, int | float) and number > most:
                raise CheckpointError(f"{where} asks for {name} = {number:.6g}, and no model has more than {most}")


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
    check_config(data, str(path))
    return data
