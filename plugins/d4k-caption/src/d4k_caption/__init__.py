"""Captioners of d4k: any OpenAI-compatible endpoint, and local vision-language models of transformers."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_captioners(register: Callable[..., None]) -> None:
    """Register the endpoint and the local model."""
    register(
        "openai",
        "d4k_caption.endpoint:OpenAI",
        summary="any OpenAI-compatible chat endpoint: GPT-4o, vLLM, llama.cpp and others",
    )
    register(
        "transformers",
        "d4k_caption.local:Transformers",
        summary="vision-language model of transformers on this machine, such as SmolVLM or LLaVA",
    )
