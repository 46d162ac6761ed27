"""GLCM score and compression ratio for d4k: how much fine detail an image has (Diffusion-4K, arXiv 2503.18352)."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    """Register the measures of detail."""
    register("glcm", "d4k_glcm.metrics:GLCMScore", summary="grey-level co-occurrence score as published")
    register("glcm-entropy", "d4k_glcm.metrics:GLCMEntropy", summary="textbook (Haralick) co-occurrence entropy")
    register("glcm-property", "d4k_glcm.metrics:GLCMProperty", summary="contrast, homogeneity, ... of co-occurrence")
    register("compression-ratio", "d4k_glcm.compression:CompressionRatio", summary="raw bytes to bytes as JPEG")
