"""Values of small tensors while a model runs on the meta device, for models that read some: the length of a mask.

Tensors on the meta device have no values. A model that asks for one (`mask.sum().tolist()`) can be traced all the same
when what it asks for follows from values that are known: those that it makes itself (`torch.ones`, `torch.arange`), and
those that are told beforehand. These are computed beside the trace, on the CPU, as long as they are small.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from d4k.errors import ConfigError
from d4k.protocols import Conditioning
from d4k.upstream import TorchDispatchMode, storage_key, tree_leaves, tree_map

__all__ = ["Known", "UnknownValueError", "ones_of"]

LARGEST = 2**21
"""Bytes of a tensor whose values are followed: a mask over the tokens of a large picture, not its attention."""

ATEN = torch.ops.aten
BY_VALUES = (ATEN.nonzero.default, ATEN.masked_select.default, ATEN._unique2.default, ATEN.repeat_interleave.Tensor)
"""Operations whose result has a shape that depends on values."""

WHOLE = (ATEN.zero_.default, ATEN.fill_.Scalar, ATEN.fill_.Tensor, ATEN.copy_.default)
"""Operations that give a tensor all of its values, whatever it held before."""


class UnknownValueError(ConfigError):
    """A value is read that planning does not have."""


class Known(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes small tensors beside the meta device, and answers when a model reads their values.

    Args:
        ones: tensors on the meta device that are taken to be full of ones.
    """

    def __init__(self, ones: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: dict[int, torch.UntypedStorage] = {}
        for tensor in ones:
            self._keep(tensor, torch.ones(tensor.untyped_storage().nbytes() // tensor.itemsize, dtype=tensor.dtype))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is ATEN.index.Tensor:
            args = (args[0], [number for index in args[1] for number in self._as_numbers(index)])
        if func is ATEN._local_scalar_dense.default or _leaves_meta(func, args, kwargs) or func in BY_VALUES:
            return self._read(func, args, kwargs)
        result = func(*args, **kwargs)
        self._follow(func, args, kwargs, result)
        return result

    def _read(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer from known values."""
        if not any(_is_meta(leaf) for leaf in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        if not self._all_known((args, kwargs)):
            raise UnknownValueError(f"it reads values of a tensor ({func}), which planning does not have")
        real = func(*tree_map(self._real, args), **tree_map(self._real, kwargs))
        return tree_map(self._to_meta, real) if func in BY_VALUES else real

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Compute the values of a result beside it, where they follow from known ones; forget what is overwritten."""
        made = [leaf for leaf in tree_leaves(result) if _is_meta(leaf)]
        writes = func._schema.is_mutable
        if not made or (not writes and all(self._has(tensor) for tensor in made)):
            return
        small = all(tensor.untyped_storage().nbytes() <= LARGEST for tensor in made)
        if small and func in WHOLE and not self._has(made[0]) and self._all_known((args[1:], kwargs)):
            given = tree_map(self._real, args[1:])
            self._keep(made[0], func(torch.empty(made[0].shape, dtype=made[0].dtype), *given))
        elif small and not _is_chance(func) and self._all_known((args, kwargs)):
            real = func(*tree_map(self._real, args), **tree_map(self._real, kwargs))
            for tensor, values in zip(made, _tensors(real), strict=True):
                if not self._has(tensor):
                    self._keep(tensor, values)
        elif writes:
            for tensor in made:
                self.values.pop(storage_key(tensor.untyped_storage()), None)

    def _as_numbers(self, index: Any) -> list[Any]:
        """A mask that selects, as numbers along each of its dimensions: their count is a shape."""
        if not _is_meta(index) or index.dtype not in (torch.bool, torch.uint8):
            return [index]
        if not self._has(index):
            raise UnknownValueError("it selects by a mask whose values planning does not have")
        return [self._to_meta(numbers) for numbers in self._real(index).nonzero().unbind(1)]

    def _keep(self, tensor: Tensor, values: Tensor) -> None:
        """Remember the values of a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        if storage.nbytes() > LARGEST:
            return
        room = torch.zeros(storage.nbytes() // tensor.itemsize, dtype=tensor.dtype)
        if values.ndim == 1 and values.numel() == room.numel():
            room.copy_(values)
        else:
            room.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset()).copy_(values)
        key = storage_key(storage)
        if tensor.numel() * tensor.itemsize != storage.nbytes() and values.numel() != room.numel():
            return  # a part of a whole whose rest is not known
        self.values[key] = room.untyped_storage()
        weakref.finalize(storage, self.values.pop, key, None)

    def _to_meta(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        tensor = torch.empty_like(value, device="meta")
        self._keep(tensor, value)
        return tensor

    def _has(self, tensor: Tensor) -> bool:
        return storage_key(tensor.untyped_storage()) in self.values

    def _all_known(self, arguments: Any) -> bool:
        """Whether every tensor among the arguments has values, on the CPU or here."""
        return all(not _is_meta(leaf) or self._has(leaf) for leaf in tree_leaves(arguments))

    def _real(self, value: Any) -> Any:
        """The values of a tensor, and the CPU in place of the meta device."""
        if isinstance(value, torch.device):
            return torch.device("cpu") if value.type == "meta" else value
        if not _is_meta(value):
            return value
        storage = self.values[storage_key(value.untyped_storage())]
        room = torch.empty(0, dtype=value.dtype)
        return room.set_(storage, value.storage_offset(), value.size(), value.stride())


def ones_of(conditioning: Conditioning) -> list[Tensor]:
    """Those tensors of encoded prompts that are masks or numbers of tokens: for planning, full of ones."""
    return [tensor for tensor in conditioning.tensors.values() if not tensor.is_floating_point()]


def _is_chance(func: Any) -> bool:
    """Whether the result of an operation is random, or whatever its memory held."""
    return torch.Tag.nondeterministic_seeded in func.tags or "empty" in func.overloadpacket.__name__


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "meta"


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _leaves_meta(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation copies from the meta device to another."""
    if func is ATEN._to_copy.default:
        device = kwargs.get("device")
        return device is not None and torch.device(device).type != "meta"
    return func is ATEN.copy_.default and _is_meta(args[1]) and not _is_meta(args[0])
