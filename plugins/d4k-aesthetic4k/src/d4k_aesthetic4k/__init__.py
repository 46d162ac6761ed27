"""The Aesthetic-4K dataset (arXiv 2503.18352) and its local image-folder layout for d4k."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Register the dataset."""
    register(
        "aesthetic-4k",
        "d4k_aesthetic4k.dataset:Aesthetic4K",
        summary="Aesthetic-4K from the Hub, or a folder with metadata.jsonl",
    )
