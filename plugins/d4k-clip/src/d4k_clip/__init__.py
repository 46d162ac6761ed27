"""CLIPScore, LAION aesthetics and human-preference scores for d4k (Diffusion-4K)."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    """Register the scores that are CLIP models."""
    register("clip-score", "d4k_clip.metrics:CLIPScore", summary="likeness of picture and prompt, CLIP ViT-B/16")
    register("aesthetics", "d4k_clip.metrics:Aesthetics", summary="LAION aesthetics predictor on CLIP ViT-L/14")
    register("pickscore", "d4k_clip.metrics:PickScore", summary="human preference learned from Pick-a-Pic (ViT-H/14)")
    register("hpsv2", "d4k_clip.metrics:HPSv2", summary="human preference score v2.1, learned from HPD (ViT-H/14)")
