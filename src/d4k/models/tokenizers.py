"""Whether a model's tokenizers have their files: without them transformers makes a vocabulary of two tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d4k.errors import CheckpointError
from d4k.models.headers import AGAIN

__all__ = ["check_tokenizers"]

SETTINGS = "tokenizer_config.json"
WHOLE, PIECES = "tokenizer.json", "tokenizer.model"
"""Either of them is a whole vocabulary; a class may name others, such as `vocab.json` with `merges.txt`."""


def check_tokenizers(folder: Path) -> None:
    """Check that each tokenizer of a model in the diffusers layout has its settings and its vocabulary.

    Args:
        folder: holds `model_index.json`.

    Raises:
        CheckpointError: files are missing; the message names them.
    """
    for name, cls in _tokenizers(folder):
        needed = dict(getattr(cls, "vocab_files_names", None) or {})
        if not (folder / name / SETTINGS).is_file():
            raise CheckpointError(f"{folder / name} lacks {SETTINGS}, which says how long texts may be. {AGAIN}")
        if not needed:
            continue  # its tokens are bytes
        needed.pop("tokenizer_file", None)
        ways = dict.fromkeys([(WHOLE,), tuple(needed.values()) or (PIECES,), (PIECES,)])
        if not any(all(_is_whole(folder / name / file) for file in way) for way in ways):
            said = ", or ".join(" with ".join(way) for way in list(ways)[:2])
            raise CheckpointError(f"{folder / name} lacks the vocabulary of its {cls.__name__}: {said}. {AGAIN}")


def _is_whole(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _tokenizers(folder: Path) -> Iterator[tuple[str, Any]]:
    """Name and class of what `model_index.json` says is a tokenizer of transformers."""
    import transformers

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'model_index.json'} is missing or not JSON. {AGAIN}") from error
    for name, entry in index.items():
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] != "transformers":
            continue
        cls = getattr(transformers, str(entry[1]), None)
        if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedTokenizerBase):
            yield name, cls
