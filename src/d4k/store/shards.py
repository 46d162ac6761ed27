"""Shards: safetensors files of many entries, each with its checksum and its layout in the header.

A shard says all of itself: its group, and of each entry the key, the checksum and how its tensors are unfolded. So the
index can be made again from shards alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d4k.errors import DataError
from d4k.files import atomic_file, parse_json
from d4k.store.codec import Layout, pack, unpack
from d4k.store.keys import BYTES, FORMAT, Group

__all__ = ["ENDING", "Packed", "Shard", "pack_entry", "write_shard"]

ENDING = ".safetensors"
HEADER = "d4k"
"""Key of the header under which a shard describes itself."""


@frozen(eq=False)
class Packed:
    """An entry as it is written.

    Args:
        tensors: stored values by name, each (K,).
        layouts: how they are unfolded, by name.
        checksum: of key, layouts and values.
    """

    tensors: Mapping[str, Tensor]
    layouts: Mapping[str, Layout]
    checksum: str

    @property
    def bytes(self) -> int:
        """Bytes of the stored values."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def pack_entry(key: str, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Packed:
    """Named tensors as they are written.

    Args:
        key: of the entry.
        tensors: by name.
        dtype: of the stored numbers.
    """
    packed = {name: pack(tensor, dtype) for name, tensor in sorted(tensors.items())}
    stored = {name: values for name, (values, _) in packed.items()}
    layouts = {name: layout for name, (_, layout) in packed.items()}
    return Packed(stored, layouts, _checksum(key, stored, layouts))


def write_shard(path: Path, group: Group, entries: Mapping[str, Packed]) -> int:
    """Write a shard, whole or not at all.

    Args:
        path: of the file, which nobody else writes.
        group: of the entries.
        entries: by key.

    Returns:
        The size of the file in bytes.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    about = {
        "format": FORMAT,
        "group": asdict(group),
        "entries": {key: {"checksum": one.checksum, "layouts": dict(one.layouts)} for key, one in entries.items()},
    }
    tensors = {f"{key}/{name}": values for key, one in entries.items() for name, values in one.tensors.items()}
    with atomic_file(path) as temporary:
        mode = temporary.stat().st_mode  # safetensors would leave a file that other users cannot read
        try:
            save_file(tensors, temporary, {HEADER: json.dumps(about)})
        except (SafetensorError, RuntimeError) as error:
            raise OSError(f"is the disk full? {error}") from error
        temporary.chmod(mode)
    return path.stat().st_size


class Shard:
    """A shard that is open for reading, mapped into memory.

    Args:
        path: of the file.

    Attributes:
        group: of its entries.
        keys: of its entries, in the order of writing.

    Raises:
        DataError: it is missing, cut short, or no shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: Any = safe_open(path, framework="pt")
            metadata: dict[str, str] = self._file.metadata() or {}  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as error:
            raise DataError(f"shard {path} cannot be read: {error}", path) from error
        about = parse_json(metadata.get(HEADER, ""), f"the header of shard {path}", DataError)
        try:
            if about["format"] != FORMAT:
                raise DataError(f"shard {path} has format {about['format']}, and this d4k knows {FORMAT}", path)
            self.group = Group(**about["group"])
            self._entries: dict[str, Any] = dict(about["entries"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"shard {path} does not describe its entries: {error}", path) from error

    @property
    def keys(self) -> list[str]:
        """The keys of its entries."""
        return list(self._entries)

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of an entry, in the dtypes that they had before they were stored.

        Raises:
            DataError: it is not as it was written.
        """
        packed, found = self.packed(key), None
        with suppress(KeyError, TypeError, AttributeError, RuntimeError, ValueError):
            found = {name: unpack(values, packed.layouts[name]) for name, values in packed.tensors.items()}
        if found is None:
            raise self._damaged(key)
        return found

    def packed(self, key: str) -> Packed:
        """An entry as it is stored, checked.

        Raises:
            DataError: it is not as it was written.
        """
        with suppress(KeyError, TypeError, AttributeError, RuntimeError, ValueError, SafetensorError, OSError):
            entry = self._entries[key]
            # a copy: what was checked is what is used, whatever becomes of the file
            stored = {name: self._file.get_tensor(f"{key}/{name}").clone() for name in entry["layouts"]}
            if _checksum(key, stored, entry["layouts"]) == entry["checksum"]:
                return Packed(stored, entry["layouts"], entry["checksum"])
        raise self._damaged(key)

    def _damaged(self, key: str) -> DataError:
        return DataError(f"entry {key} of shard {self.path} is not as it was written", self.path)


def _checksum(key: str, stored: Mapping[str, Tensor], layouts: Mapping[str, Layout]) -> str:
    hasher = hashlib.blake2b(json.dumps([key, layouts], sort_keys=True).encode(), digest_size=BYTES)
    for name, values in sorted(stored.items()):
        hasher.update(f"{name} {values.dtype} {len(values)};".encode())
        hasher.update(values.view(torch.uint8).numpy().data)
    return hasher.hexdigest()
