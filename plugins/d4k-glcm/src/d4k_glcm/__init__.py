"""GLCM score and compression ratio for d4k: how much fine detail an image has (Diffusion-4K, arXiv 2503.18352)."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    """Register the three measures of detail."""
    register("glcm", "d4k_glcm.metrics:GLCMScore", summary="grey-level co-occurrence score as published")
    register("glcm-entropy", "d4k_glcm.metrics:GLCMEntropy", summary="textbook (Haralick) co-occurrence entropy")
    register("compression-ratio", "d4k_glcm.metrics:CompressionRatio", summary="raw bytes to JPEG bytes at quality 95")
