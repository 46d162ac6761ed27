"""The scan: everything that must be known of every picture, looked at once and never again."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from attrs import define, field, frozen
from tqdm.auto import tqdm

from d4k.datasets.build.engines import Engine, look_at
from d4k.datasets.build.figures import Chosen
from d4k.datasets.build.log import Facts, ScanLog
from d4k.datasets.build.look import Looker, Task
from d4k.datasets.build.values import Listed, Seen
from d4k.errors import DataError

__all__ = ["Scan", "Scanned"]

ROUNDS = 5
"""Looks at a file that changes while it is read."""


@frozen
class Scanned:
    """What a scan found.

    Args:
        seen: of each picture, in the order they were given.
        read: files that were read.
        decoded: files of these that were decoded, too.
    """

    seen: tuple[Seen, ...]
    read: int
    decoded: int


@define
class Scan:
    """Brings a log up to date with files, and says what it knows of each.

    Args:
        log: open.
        looker: what looks.
        chosen: the filters; their keys are those of `looker`.
        engine: see `look_at`.
        workers: likewise.
        quiet: show no progress.
    """

    log: ScanLog
    looker: Looker
    chosen: Sequence[Chosen]
    engine: Engine = "process"
    workers: int = 1
    quiet: bool = False
    _unreadable: dict[str, str] = field(factory=dict, init=False)
    _read: int = field(default=0, init=False)
    _decoded: int = field(default=0, init=False)

    def __call__(self, pictures: Sequence[Listed]) -> Scanned:
        """Look at whatever the log does not know.

        A file whose size, modification time and inode are those that were noted is not even read. Another one is
        read, and is decoded unless the same content was seen before, under whatever name.

        Args:
            pictures: those without a path are broken, by their own `problem`.
        """
        paths = dict.fromkeys(str(picture.path) for picture in pictures if picture.path is not None)
        sizes = {known["bytes"] for known in self.log.pictures.values()}
        self._look([task for path in paths if (task := self._first_task(path, sizes))], "looking at pictures")
        for _ in range(ROUNDS):
            tasks = list(self._second_tasks(paths))
            self._look(tasks, "measuring pictures")
            if not tasks:
                return Scanned(tuple(map(self._seen, pictures)), self._read, self._decoded)
        raise DataError(f"{tasks[0].path} changes while it is read; run the command again when it is finished")

    def _first_task(self, path: str, sizes: Container[int]) -> Task | None:
        """A look at a file of unknown content; its digest comes first where it may be that of a known picture."""
        try:
            facts = Facts.of(Path(path))
        except (OSError, ValueError):
            return Task(path)  # which says what is wrong
        if self.log.digest(path, facts) is not None:
            return None
        return Task(path) if facts.size in sizes else Task(path, True, self.looker.keys)

    def _second_tasks(self, paths: Iterable[str]) -> Iterable[Task]:
        """A look at each known content of which something is missing."""
        done = set()
        for path in paths:
            if path in self._unreadable:
                continue
            digest = self.log.files[path][1]
            known = self.log.pictures.get(digest, {})
            if digest not in done and self.looker.reading not in known.get("broken", {}):
                there = {key for kind in ("figures", "refused", "fingerprints") for key in known.get(kind, {})}
                missing = tuple(key for key in self.looker.keys if key not in there)
                if missing or "width" not in known:
                    yield Task(path, True, missing)
            done.add(digest)

    def _look(self, tasks: Sequence[Task], words: str) -> None:
        lines = look_at(tasks, self.looker, self.engine, self.workers)
        for line in tqdm(lines, words, len(tasks), delay=0.5, unit="picture", disable=self.quiet or not tasks):
            if "unreadable" in line:
                self._unreadable[line["file"]] = line["unreadable"]
                continue
            self._read += 1
            self._decoded += "seen" in line
            self.log.add(line)

    def _seen(self, picture: Listed) -> Seen:
        path = str(picture.path)
        if picture.path is None:
            return Seen(broken=picture.problem or "it has no file")
        if path in self._unreadable:
            return Seen(broken=self._unreadable[path])
        digest = self.log.files[path][1]
        known = self.log.pictures[digest]
        if self.looker.reading in known.get("broken", {}):
            return Seen(digest, known["bytes"], broken=known["broken"][self.looker.reading])
        figures, refused = known.get("figures", {}), known.get("refused", {})
        return Seen(
            digest,
            known["bytes"],
            known["width"],
            known["height"],
            known["format"],
            {one.name: figures[one.key] for one in self.chosen if one.key in figures},
            {one.name: refused[one.key] for one in self.chosen if one.key in refused},
            known["fingerprints"][self.looker.fingerprint],
        )
