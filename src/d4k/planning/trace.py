"""What a computation on meta tensors would take: bytes held at the peak, and floating-point operations.

Meta tensors have shapes and no memory, so a model of any size is traced in seconds. Two things differ from tensors
with memory, and are put right here: attention, which meta tensors would compute with the whole matrix of scores, and
mixed precision, which PyTorch offers on real devices only.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.overrides import TorchFunctionMode

from d4k.models import Known
from d4k.upstream import (
    TorchDispatchMode,
    _engine_run_backward,
    fused_attention,
    operation_flops,
    storage_key,
    tree_leaves,
    tree_map,
)

__all__ = ["Trace", "trace"]

NARROW = {
    "linear",
    "matmul",
    "__matmul__",
    "bmm",
    "baddbmm",
    "addmm",
    "conv1d",
    "conv2d",
    "scaled_dot_product_attention",
}
WIDE = {"layer_norm", "group_norm", "rms_norm", "softmax", "log_softmax", "mse_loss", "l1_loss", "norm", "cumsum"}


@frozen
class Trace:
    """What a computation takes.

    Args:
        peak: bytes held at once, at most, beside the weights; with gradients, where it is differentiated.
        kept: bytes that are left before it is differentiated: what the backward pass needs.
        flops: floating-point operations of its matrix products, convolutions and attention.
    """

    peak: int
    kept: int
    flops: int


def trace(run: Callable[[], Tensor], autocast: torch.dtype | None = None, ones: Iterable[Tensor] = ()) -> Trace:
    """Run something on meta tensors, and add up what it would take beside the tensors that are there before.

    Args:
        run: the computation; where its result requires a gradient, its mean square is differentiated.
        autocast: the narrow dtype of mixed precision.
        ones: tensors whose values may be read, such as masks; they are taken to be full of ones.

    Raises:
        UnknownValueError: a value is read that does not follow from these.
    """
    modes: list[Any] = [FusedAttention()] if autocast is None else [FusedAttention(), Autocast(autocast)]
    with Live() as live, Known(ones):
        with _all(modes):
            result = run()
        for mode in modes:
            mode.end_forward()
        kept = live.now
        if result.requires_grad:
            loss = result.float().square().mean()
            with _all(modes):
                # `backward` itself would switch the modes off, and checkpointed layers are computed again within it
                _engine_run_backward((loss,), (torch.ones_like(loss),), False, False, (), accumulate_grad=True)
            del loss
        del result
    return Trace(live.peak, kept, live.flops)


@contextmanager
def _all(modes: Iterable[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        yield


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage from the operation that makes it until nothing refers to it.

    Attributes:
        now: bytes held.
        peak: bytes held at once, at most.
        flops: floating-point operations so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self.now = self.flops = 0
        self.seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for leaf in _on_meta((args, kwargs)):
            self.follow(leaf.untyped_storage(), 0)  # unless an operation made it, it was there before
        result = func(*args, **kwargs)
        made = _on_meta(result)
        if not made:
            return result  # small values that are computed beside the trace
        if (count := operation_flops(func)) is not None:
            self.flops += count(*args, **kwargs, out_val=result)
        for leaf in made:
            self.follow(leaf.untyped_storage(), leaf.untyped_storage().nbytes())
        return result

    def follow(self, storage: Any, size: int) -> None:
        """Count a storage as `size` bytes until it is freed, unless it is followed already."""
        key = storage_key(storage)
        if key not in self.seen:
            self.seen[key] = size
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        """Count it no longer."""
        self.now -= self.seen.pop(key)


def _on_meta(arguments: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.device.type == "meta"]


class FusedAttention(TorchFunctionMode):
    """Scaled-dot-product attention by the memory-efficient kernel, which never holds the matrix of scores."""

    def end_forward(self) -> None:
        """Nothing ends."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The arguments of `torch.nn.functional.scaled_dot_product_attention`."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    result: Tensor = fused_attention()(query, key, value, attn_mask, grad, dropout_p, is_causal, scale=scale)[0]
    return result


class Autocast(TorchFunctionMode):
    """What `torch.autocast` does on a GPU: products in a narrow dtype, norms in float32, weights cast once a pass.

    Args:
        dtype: of products.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.cast: dict[int, Tensor] | None = {}

    def end_forward(self) -> None:
        """From now on cast weights anew each time, as checkpointed layers do when they are computed again."""
        self.cast = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in NARROW:
            args, kwargs = tree_map(self._narrow, (args, kwargs or {}))
        elif name in WIDE:
            args, kwargs = tree_map(_widen, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _narrow(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if self.cast is None or not (value.is_leaf and value.requires_grad):
            return value.to(self.dtype)
        if id(value) not in self.cast:
            self.cast[id(value)] = value.to(self.dtype)
        return self.cast[id(value)]


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
