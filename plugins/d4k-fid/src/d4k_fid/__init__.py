"""FID, KID, precision, recall, FD-DINOv2 and patch-FID for d4k (Diffusion-4K)."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    """Register the distances between sets of pictures, and the two shares."""
    register("fid", "d4k_fid.metrics:FID", summary="Frechet distance to references, on Inception features")
    register("kid", "d4k_fid.metrics:KID", summary="kernel distance to references, on Inception features")
    register("precision", "d4k_fid.metrics:Precision", summary="share of pictures that look like references")
    register("recall", "d4k_fid.metrics:Recall", summary="share of references that look like pictures")
    register("fd-dinov2", "d4k_fid.metrics:FDDINOv2", summary="Frechet distance to references, on DINOv2 features")
    register("patch-fid", "d4k_fid.metrics:PatchFID", summary="FID of 299-pixel patches at full resolution")
