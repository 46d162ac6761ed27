"""Context parallelism: several processes share the tokens of one picture, by the plan that diffusers has of its model.

Each process computes its part of the tokens, and attention exchanges heads for tokens (Ulysses), so that a picture of
65,536 tokens needs the activations of a part of them on each device.

Source: DeepSpeed-Ulysses, Jacobs et al. 2023, arXiv 2309.14509.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import init_device_mesh

from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.processes import Processes
from d4k.protocols import Backbone
from d4k.training.data.samples import Feed
from d4k.training.data.views import captions
from d4k.upstream import context_plan, split_tokens

__all__ = ["check_context", "quiet_context", "share_tokens"]


def check_context(backbone: Backbone, feed: Feed, config: RunConfig) -> None:
    """Refuse a model, a size or a text whose tokens cannot be shared out.

    Raises:
        ConfigError: diffusers has no plan for the model, or heads or tokens do not divide evenly.
    """
    context, module = config.parallel.context, backbone.trainable
    if context == 1:
        return
    if context_plan(module) is None:
        raise ConfigError(
            f"parallel.context = {context} needs a plan of diffusers, which {type(module).__name__} does not have: set "
            "it to 1; training.gradient_checkpointing and fsdp2 save memory as well"
        )
    text = feed.source.text(captions(feed.chosen, config)[0]).tensors.values()
    counts = {f"{tensor.shape[1]} tokens of text": tensor.shape[1] for tensor in text if tensor.ndim == 3}
    for bucket in feed.chosen.buckets:
        tokens = backbone.latent.tokens(bucket.height, bucket.width)
        counts[f"{tokens} tokens of a picture of {bucket.width}x{bucket.height}"] = tokens
    heads = getattr(getattr(module, "config", None), "num_attention_heads", None)
    counts |= {} if heads is None else {f"{heads} attention heads": heads}
    for words, count in counts.items():
        if count % context:
            raise ConfigError(f"parallel.context is {context}, which does not divide {words}: choose one that does")


def share_tokens(module: torch.nn.Module, context: int, processes: Processes, device: torch.device) -> None:
    """Give each process its part of the tokens; neighbours in rank share a picture.

    Args:
        module: a diffusers model with a plan.
        context: processes that share a picture.
        processes: of the launch.
        device: where this process computes.
    """
    shape, names = (processes.count // context, 1, context), ("data", "ring", "ulysses")
    split_tokens(module, init_device_mesh(device.type, shape, mesh_dim_names=names), context)


@contextmanager
def quiet_context() -> Iterator[None]:
    """The time of a forward pass; diffusers calls what newer releases of torch have another name for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*all_gather_tensor` is deprecated", FutureWarning)
        yield
