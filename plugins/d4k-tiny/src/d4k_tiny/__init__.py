"""Two small pretrained checkpoints and sample photographs, so that everything in d4k runs offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from d4k import hookimpl

CHECKPOINTS = Path(__file__).parent / "checkpoints"


@hookimpl
def register_checkpoints(register: Callable[..., None]) -> None:
    """Register `tiny-sd3` and `tiny-flux`."""
    for name, backbone in (("tiny-sd3", "sd3"), ("tiny-flux", "flux")):
        summary = f"five-million-parameter {backbone} trained on the sample photographs at 256 pixels"
        register(name, backbone=backbone, source=str(CHECKPOINTS / name), summary=summary)


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Register `sample-photos`."""
    register(
        "sample-photos",
        "d4k_tiny.photos:SamplePhotos",
        summary="twelve public-domain and CC0 photographs that scikit-image carries",
    )
