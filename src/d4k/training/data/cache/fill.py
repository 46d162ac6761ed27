"""Filling a cache: what a run needs and the cache lacks is encoded, and nothing else."""

from __future__ import annotations

import io
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import torch
from attrs import frozen
from torch import Tensor
from tqdm.auto import tqdm

from d4k.autoencoder import Posterior
from d4k.errors import ConfigError, DataError
from d4k.files import write_text
from d4k.images import open_picture, to_float, to_tensor
from d4k.processes import Processes
from d4k.protocols import Backbone, Dataset
from d4k.seeds import numbered_seed
from d4k.store import Writer, narrow
from d4k.training.data.cache.folder import open_cache
from d4k.training.data.cache.keys import Keys, make_keys
from d4k.training.data.cache.originals import Originals, content_digest, read_source
from d4k.training.data.cache.source import LOG_VARIANCE, MEAN, CachedSource, Original, view_key
from d4k.training.data.source import View

__all__ = ["CacheSettings", "Filled", "fill"]

THREADS = 4
NAMED = 20
"""Pictures that an error names."""

UNREADABLE = "unreadable.txt"
"""File in the cache that names all pictures that could not be encoded when it was last filled."""

Thing = TypeVar("Thing")
Result = TypeVar("Result")


@frozen
class CacheSettings:
    """How a cache is filled.

    Args:
        dtype: of the stored numbers: "bfloat16", "float16" or "float32".
        posterior: what is trained on: the "mode" of the posterior, or a "sample" of it.
        unreadable: what happens to pictures that cannot be encoded: "stop" names all and raises, "skip" returns them.
    """

    dtype: str = "bfloat16"
    posterior: Literal["mode", "sample"] = "mode"
    unreadable: Literal["stop", "skip"] = "stop"


@frozen(eq=False)
class Filled:
    """A cache that holds what a run needs.

    Args:
        source: reads from it.
        pictures: of the dataset that are in it.
        latents: views of them that are asked for.
        captions: that are asked for.
        encoded: latents that were encoded now, by all processes.
        texts_encoded: captions that were encoded now, by all processes.
        bytes: stored for both.
        unreadable: the pictures that could not be encoded: number in the dataset -> a sentence that names it.
        notes: a sentence for each thing that was mended on opening.
    """

    source: CachedSource
    pictures: int
    latents: int
    captions: int
    encoded: int
    texts_encoded: int
    bytes: int
    unreadable: Mapping[int, str]
    notes: Sequence[str] = ()


def fill(
    backbone: Backbone,
    dataset: Dataset,
    views: Iterable[View],
    captions: Iterable[str],
    folder: Path,
    settings: CacheSettings | None = None,
    processes: Processes | None = None,
) -> Filled:
    """Encode what a run needs and its cache lacks; every process of a launch calls it, and encodes its share.

    Args:
        backbone: loaded, with its autoencoder and text encoders.
        dataset: of the pictures.
        views: all that will be asked for.
        captions: likewise.
        folder: of the cache.
        settings: how it is filled.
        processes: that share the work; None is those of the launch.

    Raises:
        ConfigError: samples of the posterior are wanted, and the backbone has none.
        DataError: pictures cannot be encoded and `unreadable` is "stop", or a caption cannot, or the cache is damaged.
        OutputError: the disk is full, or the folder cannot be written.
    """
    settings, processes = settings or CacheSettings(), processes or Processes()
    if settings.posterior == "sample" and not hasattr(backbone, "encode_posterior"):
        raise ConfigError(
            "data.posterior = 'sample' needs a backbone that has a posterior, and this one has modes only: set it to "
            "'mode'"
        )
    with processes.together():
        work = _Filling(backbone, dataset, folder, settings, processes)
    return work.run(list(views), list(dict.fromkeys(captions)))


class _Filling:
    """The state of one call of `fill`."""

    def __init__(
        self, backbone: Backbone, dataset: Dataset, folder: Path, settings: CacheSettings, processes: Processes
    ) -> None:
        self.backbone, self.dataset, self.settings, self.processes = backbone, dataset, settings, processes
        self.store = open_cache(folder)
        self.keys: Keys = make_keys(backbone, settings.dtype)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self.originals: dict[int, Original] = {}
        self.faults: dict[int, str] = {}

    def run(self, views: list[View], captions: list[str]) -> Filled:
        """Fill, and say what was done."""
        indices = list(dict.fromkeys(view.index for view in views))
        with self.processes.together():
            self._identify(self._share(indices))
        for originals, faults in self.processes.gather((self.originals, self.faults)):
            self.originals |= originals
            self.faults |= faults
        with self.processes.together():
            wanted = self._keyed(views)
        lacking = self._lacking(wanted)
        with self.processes.together():
            latents = self._encode_latents({key: wanted[key][0] for key in lacking})
        self.faults = {index: why for part in self.processes.gather(self.faults) for index, why in part.items()}
        with self.processes.together():
            self._blame_copies(wanted.values())
            self._refuse_unreadable()
        spoken = {self.keys.text(caption): caption for caption in captions}
        lacking = self._lacking(spoken)
        with self.processes.together():
            texts = self._encode_texts({key: spoken[key] for key in lacking})
        notes = [note for part in self.processes.gather(self.store.notes) for note in part]
        done = self.processes.gather((latents.entries, texts.entries, latents.bytes + texts.bytes))
        with self.processes.together():
            self._check_complete(views, captions)
        readable = {index: one for index, one in self.originals.items() if index not in self.faults}
        encoded, texts_encoded, size = (sum(counts) for counts in zip(*done, strict=True))
        return Filled(
            CachedSource(self.store, self.keys, readable),
            pictures=len(readable),
            latents=sum(view.index in readable for view in views),
            captions=len(captions),
            encoded=encoded,
            texts_encoded=texts_encoded,
            bytes=size,
            unreadable=dict(sorted(self.faults.items())),
            notes=notes,
        )

    def _share(self, things: Sequence[Thing]) -> Sequence[Thing]:
        """What this process does of a list that all have."""
        return things[self.processes.rank :: self.processes.count]

    def _identify(self, indices: Sequence[int]) -> None:
        """Find the digests and sizes of pictures."""
        originals = Originals(self.store.index)

        def look(index: int) -> tuple[int, Original | str]:
            sample = self.dataset[index]
            try:
                return index, Original(sample.id, originals.facts(sample))
            except DataError as error:
                return index, str(error)

        with ThreadPoolExecutor(THREADS) as pool:
            for index, found in self._bar(_ahead(pool, look, indices), len(indices), "reading pictures", "picture"):
                if isinstance(found, str):
                    self.faults[index] = found
                else:
                    self.originals[index] = found
        originals.flush()

    def _keyed(self, views: Iterable[View]) -> dict[str, list[View]]:
        """The views by the key of their latent; pictures whose files are copies of each other have one."""
        keyed: dict[str, list[View]] = defaultdict(list)
        for view in self._readable(views):
            keyed[view_key(self.keys, view, self.originals[view.index].facts)].append(view)
        return keyed

    def _lacking(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that have no entry, as the first process finds them.

        Each process encodes its share of this list. Found by each for itself it would be another list, since others
        write meanwhile, and what lies between the shares would be encoded by nobody.
        """
        with self.processes.together():
            found = self.store.missing(keys) if self.processes.first else []
        return self.processes.tell(found)  # type: ignore[no-any-return]

    def _blame_copies(self, alike: Iterable[Sequence[View]]) -> None:
        """Name the copies of a picture that could not be encoded: one was tried for all."""
        for views in alike if self.faults else ():
            fault = next((self.faults[view.index] for view in views if view.index in self.faults), None)
            for view in views if fault is not None else ():
                copy = f"picture {self.originals[view.index].id} has the same file as another: {fault}"
                self.faults.setdefault(view.index, copy)

    def _encode_latents(self, keyed: Mapping[str, View]) -> Writer:
        """Encode this process's share of views by key; each picture is decoded once for all of its own."""
        todo: dict[int, dict[str, View]] = defaultdict(dict)
        for key, view in keyed.items():
            todo[view.index][key] = view
        mine = _turned(self._share(list(todo.items())))

        def decode(item: tuple[int, dict[str, View]]) -> tuple[int, dict[str, Tensor] | str]:
            try:
                return item[0], self._cut(*item)
            except DataError as error:
                return item[0], str(error)

        with self.store.writer(self.keys.latents) as writer, ThreadPoolExecutor(THREADS) as pool:
            for index, cuts in self._bar(_ahead(pool, decode, mine), len(mine), "encoding pictures", "picture"):
                fault = cuts if isinstance(cuts, str) else self._encode_cuts(index, cuts, writer)
                if fault:
                    self.faults[index] = fault
        return writer

    def _cut(self, index: int, views: Mapping[str, View]) -> dict[str, Tensor]:
        """The pixels of views of a picture, by key, from the very bytes whose digest is in the key."""
        sample = self.dataset[index]
        content = read_source(sample.source, sample.id)
        if content_digest(content) != self.originals[index].facts.digest:
            raise DataError(f"picture {sample.id} was changed while the cache was filled; fill it again")
        picture = open_picture(lambda: io.BytesIO(content), label=sample.id)
        return {key: to_tensor(view.crop(picture, view.seed)) for key, view in views.items()}

    def _encode_cuts(self, index: int, cuts: Mapping[str, Tensor], writer: Writer) -> str:
        """Encode cuts of a picture that another process has not brought meanwhile; returns what is wrong with it."""
        for key in self.store.missing(cuts):
            found = self._posterior(to_float(cuts[key])[None])
            tensors = {MEAN: found.mean, LOG_VARIANCE: found.log_variance}
            given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
            if not all(narrow(tensor, self.dtype).isfinite().all() for tensor in given.values()):
                what = f"picture {self.originals[index].id} has a latent that is not finite in {self.settings.dtype}"
                return f"{what}; leave it out, or set data.cache_dtype to a wider one"
            writer.add(key, given)
        return ""

    def _posterior(self, pixels: Tensor) -> Posterior:
        encode = getattr(self.backbone, "encode_posterior", None)
        with torch.no_grad():
            return Posterior(self.backbone.encode_image(pixels)) if encode is None else encode(pixels)

    def _encode_texts(self, keyed: Mapping[str, str]) -> Writer:
        """Encode this process's share of captions by key."""
        mine = _turned(self._share(list(keyed)))
        with self.store.writer(self.keys.texts) as writer, torch.no_grad():
            for key in self._bar(iter(mine), len(mine), "encoding captions", "caption"):
                if not self.store.missing([key]):
                    continue
                tensors = self.backbone.encode_text([keyed[key]]).tensors
                for name, tensor in tensors.items():
                    if tensor.is_floating_point() and not narrow(tensor, self.dtype).isfinite().all():
                        raise DataError(
                            f"'{name}' of the caption {keyed[key][:60]!r} is not finite in {self.settings.dtype}: set "
                            "data.cache_dtype to a wider one"
                        )
                writer.add(key, tensors)
        return writer

    def _readable(self, views: Iterable[View]) -> Iterator[View]:
        return (view for view in views if view.index in self.originals and view.index not in self.faults)

    def _refuse_unreadable(self) -> None:
        """Raise for pictures that could not be encoded, where the run should stop for them."""
        if self.faults and self.processes.first:
            text = "".join(f"{self.faults[index]}\n" for index in sorted(self.faults))
            write_text(self.store.folder / UNREADABLE, text)
        if not self.faults or self.settings.unreadable == "skip":
            return
        raise DataError(_unreadable([self.faults[index] for index in sorted(self.faults)], self.store.folder))

    def _check_complete(self, views: Sequence[View], captions: Sequence[str]) -> None:
        """Be sure that nothing is missing in the steps."""
        keys = [view_key(self.keys, view, self.originals[view.index].facts) for view in self._readable(views)]
        missing = self.store.missing([*keys, *map(self.keys.text, captions)])
        if missing:
            raise DataError(
                f"{len(missing)} entries that were just encoded are not in cache {self.store.folder}: do all processes "
                "see the same folder?"
            )

    def _bar(self, things: Iterator[Thing], total: int, words: str, unit: str) -> Iterator[Thing]:
        """A progress bar with an estimate, in the first process."""
        hidden = not self.processes.first or total == 0
        shown: Iterator[Thing] = iter(tqdm(things, desc=words, unit=unit, total=total, delay=0.5, disable=hidden))
        return shown


def _turned(things: Sequence[Thing]) -> Sequence[Thing]:
    """The same things, begun at a place of this process's own: others that fill the same cache begin elsewhere."""
    first = numbered_seed(os.getpid(), "cache", 0) % max(1, len(things))
    return [*things[first:], *things[:first]]


def _ahead(pool: ThreadPoolExecutor, work: Callable[[Thing], Result], things: Iterable[Thing]) -> Iterator[Result]:
    """What `work` makes of things, in their order, a few ahead of whoever asks."""
    waiting: deque[Future[Result]] = deque()
    for thing in things:
        waiting.append(pool.submit(work, thing))
        if len(waiting) > THREADS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _unreadable(faults: Sequence[str], folder: Path) -> str:
    """What to say of pictures that stop a run."""
    one = len(faults) == 1
    named = ". ".join(faults[:NAMED])
    rest = f". And {len(faults) - NAMED} more, in {folder / UNREADABLE}" if len(faults) > NAMED else ""
    return (
        f"{'one picture' if one else f'{len(faults)} pictures'} cannot be encoded: {named}{rest}. Or set "
        f"data.unreadable = 'skip' to go on without {'it' if one else 'them'}; what could be encoded is kept "
        f"in {folder}"
    )
