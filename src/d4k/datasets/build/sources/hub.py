"""Datasets on the Hub: a snapshot of their files, and the licence on their card."""

from __future__ import annotations

import re
from pathlib import Path

from d4k.datasets.build.sources.rows import Row
from d4k.errors import DataError

__all__ = ["HUB_ID", "card_of", "download"]

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def download(name: str) -> Path:
    """Fetch a dataset, or find it in the local cache of the Hub, and return its folder.

    Args:
        name: id of the dataset, such as "zhang0jhon/Aesthetic-4K".

    Raises:
        DataError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except Exception as error:  # the Hub's client raises its own errors, OSError and those of its HTTP library
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"'{name}' is no file or folder here, and the Hub dataset of that name cannot be had ({reason}); "
            "check the name, or download it where there is a network and pass the folder"
        ) from error


def card_of(name: str, folder: Path) -> Row:
    """What the card of a dataset says of all its pictures: its licence, and where it is.

    Args:
        name: id of the dataset.
        folder: its files, with the card in `README.md`.
    """
    from huggingface_hub import DatasetCard

    licence = None
    try:
        if (folder / "README.md").is_file():
            licence = DatasetCard.load(folder / "README.md", ignore_metadata_errors=True).data.license
    except Exception:  # a card that cannot be parsed gives no licence, so its pictures are kept apart
        licence = None
    words = ", ".join(licence) if isinstance(licence, list) else licence
    known = words if isinstance(words, str) and words.lower() not in ("", "unknown", "other") else None
    return Row(licence=known, source=f"https://huggingface.co/datasets/{name}")
