"""Text encoders and autoencoder out of memory while nothing is encoded, and back when it is needed."""

from __future__ import annotations

import gc
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType

import torch
from attrs import frozen
from torch import nn

from d4k.errors import CheckpointError
from d4k.models import fetch_model, model_parts, read_again
from d4k.protocols import Backbone
from d4k.training.data.cache.keys import weights_digest
from d4k.upstream import has_hooks

__all__ = ["Released"]


@frozen(eq=False)
class _Part:
    """A part whose weights are not in memory."""

    module: nn.Module
    folder: Path
    device: torch.device
    digest: str


class Released:
    """Frees the memory of a model's text encoders and autoencoder; the end of the block reads them again.

    A part is freed where it can be read again: one of diffusers or transformers whose folder is in the model's own and
    gives the very weights that are in memory, which is tried before. In its place are tensors without values: what is
    computed with them cannot be used. What is read again must be what was there, bit by bit. A block that ends with
    SystemExit leaves the parts out: the process is ending.

    Args:
        backbone: loaded from `backbone.source`.
        revision: as of the `d4k.Placement` that it was loaded with.
        variant: likewise.
        keep: names of parts that stay, such as "vae".

    Attributes:
        names: of the parts that are freed, empty outside the block.
        bytes: of their weights.

    >>> from types import SimpleNamespace
    >>> with Released(SimpleNamespace(source="", components={}, trainable=None)) as released:
    ...     released.names
    ()
    """

    def __init__(
        self, backbone: Backbone, *, revision: str | None = None, variant: str | None = None, keep: Container[str] = ()
    ) -> None:
        self.backbone, self.revision, self.variant, self.keep = backbone, revision, variant, keep
        self.bytes = 0
        self._parts: dict[str, _Part] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The parts that are not in memory now."""
        return tuple(self._parts)

    def __enter__(self) -> Released:
        for name, module, folder in self._replaceable():
            digest = weights_digest(module)
            if weights_digest(read_again(module, folder, self.variant)) != digest:
                continue  # such as a part that was fine-tuned in memory
            self._parts[name] = _Part(module, folder, next(module.parameters()).device, digest)
            self.bytes += _empty(module)
        _collect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, SystemExit):
            self.restore()

    def restore(self) -> None:
        """Read the parts again; those that are there stay.

        Raises:
            CheckpointError: a part cannot be read, or is not what it was.
        """
        for name, part in list(self._parts.items()):
            fresh = read_again(part.module, part.folder, self.variant)
            if weights_digest(fresh) != part.digest:
                raise CheckpointError(
                    f"{part.folder} was changed while the model was trained: the weights in it are not those that were "
                    f"loaded as '{name}'. What was trained is in the newest checkpoint of the run"
                )
            _take(part.module, fresh, part.device)
            del self._parts[name]
        self.bytes = 0

    def _replaceable(self) -> Iterator[tuple[str, nn.Module, Path]]:
        """Name, module and folder of each part that can be read again."""
        parts = {
            name: part
            for name, part in self.backbone.components.items()
            if part is not self.backbone.trainable and name not in self.keep and _is_plain(part)
        }
        folder = self._folder() if parts else None
        if folder is None:
            return
        known = model_parts(folder)
        for name, part in parts.items():
            if name in known and type(part) is known[name][1] and (folder / name).is_dir():
                yield name, part, folder / name

    def _folder(self) -> Path | None:
        """Where the model was read from; None where that is not known any more."""
        source = self.backbone.source
        if not source:
            return None
        folder = Path(source)
        if not folder.is_dir():
            try:
                folder = fetch_model(source, self.revision, self.variant)
            except CheckpointError:
                return None
        return folder if (folder / "model_index.json").is_file() else None


def _is_plain(module: nn.Module) -> bool:
    """Whether a module's weights are all there, and are what its files hold."""
    weights = list(module.parameters())
    plain = all(type(weight) is nn.Parameter and weight.device.type != "meta" for weight in weights)
    return bool(weights) and plain and hasattr(type(module), "from_pretrained") and not has_hooks(module)


def _empty(module: nn.Module) -> int:
    """Put tensors without values in the place of weights; those that are one tensor stay one. Returns their bytes."""
    empty: dict[int, nn.Parameter] = {}
    kept, size = [], 0
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            if id(weight) not in empty:
                kept.append(weight)  # an id is only unique among what lives
                size += weight.nbytes
                empty[id(weight)] = nn.Parameter(weight.detach().to("meta"), requires_grad=weight.requires_grad)
            setattr(part, name, empty[id(weight)])
    return size


def _take(module: nn.Module, fresh: nn.Module, device: torch.device) -> None:
    """Move the weights of one module into another of its shape; those that are one tensor stay one."""
    moved: dict[int, nn.Parameter] = {}
    kept = []
    for path, part in module.named_modules():
        source = fresh.get_submodule(path)
        for name, before in list(part.named_parameters(recurse=False)):
            weight = source.get_parameter(name)
            if id(weight) not in moved:
                kept.append(weight)
                moved[id(weight)] = nn.Parameter(weight.detach().to(device), requires_grad=before.requires_grad)
            setattr(part, name, moved[id(weight)])


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
