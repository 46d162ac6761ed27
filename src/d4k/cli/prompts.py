"""Prompts from a file."""

from __future__ import annotations

from pathlib import Path

from d4k.errors import DataError

__all__ = ["read_prompts"]


def read_prompts(path: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not empty.

    Raises:
        DataError: it cannot be read, is not text, or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read prompts from {path}: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); give one prompt a line", path
        ) from error
    if any(ord(letter) < 32 and letter != "\t" for line in lines for letter in line):
        raise DataError(f"{path} is not a text file: it holds control characters; give one prompt a line", path)
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path} holds no prompt; give one a line", path)
    return prompts
