"""Before anything is measured: every file is looked at, and what can be measured is keyed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import field, frozen
from tqdm.auto import tqdm

from d4k.errors import DataError
from d4k.evaluation.faults import LEFT_OUT, Flaw, Look, look_at
from d4k.evaluation.needs import is_of_sets
from d4k.evaluation.observe import Task
from d4k.evaluation.rows import Observer
from d4k.evaluation.subjects import Subject
from d4k.protocols import Metric

__all__ = ["Item", "Survey", "survey"]


@frozen(eq=False)
class Item:
    """One picture that may be measured.

    Args:
        subject: what is known of it.
        look: at its file.
        reference: look at its reference picture; None where no metric needs one.
        keys: by metric, the key of its row.
    """

    subject: Subject
    look: Look
    reference: Look | None = None
    keys: Mapping[str, str] = field(factory=dict)


@frozen(eq=False)
class Survey:
    """What is to be measured.

    Args:
        items: the pictures, without those that cannot be read or are there twice.
        references: likewise of the set of reference pictures.
        faults: files, and what is wrong with each.
        left: kinds of the faults of pictures that are left out.
        left_references: likewise of reference pictures.
        count: of all pictures.
        count_references: of all reference pictures.
    """

    items: list[Item]
    references: list[Item]
    faults: list[tuple[Path, Flaw]]
    left: list[str]
    left_references: list[str]
    count: int
    count_references: int

    def tasks(self, observers: Mapping[str, Observer]) -> list[Task]:
        """Each row that is needed, once; pictures that have the same bytes share theirs."""
        seen, tasks = set[str](), []
        for item in (*self.items, *self.references):
            wanted = {key: observers[name] for name, key in item.keys.items() if key not in seen}
            seen |= wanted.keys()
            if wanted:
                tasks.append(Task(item.look, item.subject.prompt, item.reference, wanted))
        return tasks

    def refuse(self, *, strict: bool) -> None:
        """Raise where nothing is left, or anything is wrong and nothing may be.

        Raises:
            DataError: it names the first file, and says how many faults there are.
        """
        if strict and self.faults:
            file, flaw = self.faults[0]
            many = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
            raise DataError(f"{many} in the files, and none is allowed: {file} is {flaw.kind}. {flaw.reason}", file)
        for items, count, noun in (
            (self.items, self.count, "picture"),
            (self.references, self.count_references, "reference picture"),
        ):
            if count and not items:
                file, flaw = next((file, flaw) for file, flaw in self.faults if flaw.kind in LEFT_OUT)
                raise DataError(f"none of {count} {noun}s can be measured; {file} is {flaw.kind}. {flaw.reason}", file)


def survey(
    subjects: Sequence[Subject],
    metrics: Mapping[str, Metric],
    observers: Mapping[str, Observer],
    references: Sequence[Path],
    threads: int,
) -> Survey:
    """Look at all files, in threads.

    Args:
        subjects: the pictures.
        metrics: that measure them.
        observers: by name of each metric whose rows are kept.
        references: the set of reference pictures.
        threads: that read.

    Raises:
        DataError: there is no picture, or a reference has another size than its picture.
    """
    if not subjects:
        raise DataError("no images to evaluate")
    compared = any("reference" in metric.needs for metric in metrics.values())
    sets = {name: one for name, one in observers.items() if is_of_sets(metrics[name])}
    others = list(references) if sets else []
    beside = [subject.reference for subject in subjects if compared and subject.reference is not None]
    looks = _looks([*(subject.file for subject in subjects), *beside, *others], threads)
    faults: list[tuple[Path, Flaw]] = []
    items, left = _items(subjects, looks, faults, compared=compared)
    kept, left_references = _items([Subject(str(file), file) for file in others], looks, faults, compared=False)
    return Survey(
        [_keyed(item, observers) for item in items],
        [_keyed(item, sets) for item in kept],
        faults,
        left,
        left_references,
        len(subjects),
        len(others),
    )


def _looks(files: Iterable[Path], threads: int) -> dict[Path, Look]:
    wanted = list(dict.fromkeys(files))
    with ThreadPoolExecutor(threads) as pool:
        found = tqdm(pool.map(look_at, wanted), "looking at pictures", len(wanted), delay=0.5, unit="picture")
        return dict(zip(wanted, found, strict=True))


def _items(
    subjects: Sequence[Subject], looks: Mapping[Path, Look], faults: list[tuple[Path, Flaw]], *, compared: bool
) -> tuple[list[Item], list[str]]:
    """What can be measured, and the kinds of faults of what cannot."""
    items, left, seen = list[Item](), list[str](), dict[object, Subject]()
    for subject in subjects:
        look = looks[subject.file]
        reference = looks[subject.reference] if compared and subject.reference is not None else None
        flaw, same = look.flaw, (look.sha256, subject.prompt, reference and reference.sha256)
        if flaw is None and same in seen:
            flaw = Flaw("duplicate", f"It has the same bytes as {seen[same].file.name}, and the same prompt.")
        if flaw is not None:
            faults.append((subject.file, flaw))
            left.append(flaw.kind)
            continue
        seen[same] = subject
        faults += [(subject.file, note) for note in look.notes]
        if reference is not None:
            _check_size(look, reference)
            faults += [(reference.file, note) for note in (reference.flaw, *reference.notes) if note is not None]
        items.append(Item(subject, look, reference))
    return items, left


def _keyed(item: Item, observers: Mapping[str, Observer]) -> Item:
    keys = {name: one.key(item.look, item.subject.prompt, item.reference) for name, one in observers.items()}
    return Item(item.subject, item.look, item.reference, keys)


def _check_size(look: Look, reference: Look) -> None:
    """Refuse a reference of another size than its picture by the headers alone."""
    own, other = (look.width, look.height), (reference.width, reference.height)
    if reference.flaw is None and own != other:
        raise DataError(
            f"reference {reference.file} is {other[0]}x{other[1]}, but image {look.file} is {own[0]}x{own[1]}: "
            "a reference has the size of its image; crop or resize one of them",
            reference.file,
        )
