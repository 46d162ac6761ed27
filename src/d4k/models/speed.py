"""How a loaded denoiser computes: attention back-end, compilation, step cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from d4k.errors import ConfigError, UnknownNameError
from d4k.upstream import attention_backends, chooses_attention, repeat_blocks, reset_step_cache

__all__ = ["STEP_CACHES", "holding_step_cache", "speed_up"]

STEP_CACHES = {"first-block": 0.05}
"""Step caches, and how much the first block's output may change before the other blocks run again."""


def speed_up(
    module: Any, *, attention: str | None = None, compiled: bool = False, step_cache: str | None = None
) -> None:
    """Choose how a denoiser computes.

    Args:
        module: a loaded denoiser.
        attention: one of diffusers' attention back-ends, such as "native", "flash" or "sage".
        compiled: compile the repeated blocks with `torch.compile`, on their first use.
        step_cache: "first-block", or with a threshold "first-block:0.1": skip the other blocks of a step while the
            first one's output hardly changes.

    Raises:
        UnknownNameError: there is no such back-end or step cache.
        ConfigError: the denoiser, or what is installed, does not allow it.
    """
    if attention is not None:
        _set_attention(module, attention)
    if step_cache is not None:
        _set_cache(module, step_cache)
    if compiled:
        _compile(module)


def _set_attention(module: Any, name: str) -> None:
    known = attention_backends()
    if name not in known:
        raise UnknownNameError("attention", name, [backend for backend in known if not backend.startswith("_")])
    processors = [getattr(part, "processor", None) for part in module.modules()]
    if not any(chooses_attention(processor) for processor in processors):
        raise ConfigError(
            f"diffusers' {type(module).__name__} always uses torch's scaled dot-product attention: leave attention out"
        )
    try:
        module.set_attention_backend(name)
    except (RuntimeError, ValueError, ImportError) as error:
        raise ConfigError(f"attention='{name}' cannot be used here: {error}") from error


def _set_cache(module: Any, cache: str) -> None:
    name, _, threshold = cache.partition(":")
    if name not in STEP_CACHES:
        raise UnknownNameError("step_cache", name, STEP_CACHES)
    if not hasattr(module, "enable_cache"):
        raise ConfigError(f"diffusers has no step cache for {type(module).__name__}: leave step_cache out")
    try:
        value = float(threshold or STEP_CACHES[name])
    except ValueError as error:
        raise ConfigError(f"cannot read the threshold of step_cache='{cache}'; write it as first-block:0.1") from error
    from diffusers import FirstBlockCacheConfig

    module.enable_cache(FirstBlockCacheConfig(threshold=value))


def _compile(module: Any) -> None:
    if not hasattr(module, "compile_repeated_blocks"):
        raise ConfigError(f"{type(module).__name__} is no diffusers model with repeated blocks: leave compile out")
    named = os.environ.get("CXX")
    if not any(shutil.which(compiler) for compiler in ((named,) if named else ("g++", "clang++", "cl"))):
        raise ConfigError(
            "compile needs a C++ compiler, and there is none on the PATH: "
            "install one, such as apt install g++, or leave compile out"
        )
    lists = [part for part in module.children() if isinstance(part, torch.nn.ModuleList)]
    repeat_blocks(module, sorted({type(block).__name__ for blocks in lists for block in blocks}))
    module.compile_repeated_blocks()


@contextmanager
def holding_step_cache(module: Any) -> Iterator[None]:
    """The time in which a denoiser's step cache holds, if it has one: the steps of one batch."""
    if not getattr(module, "is_cache_enabled", False):
        yield
        return
    try:
        with module.cache_context("d4k"):
            yield
    finally:
        reset_step_cache(module)
