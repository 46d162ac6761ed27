"""Captioning a dataset: which pictures are to be asked about, the asking, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from attrs import define, field

from d4k.datasets.captions.answers import tidied
from d4k.datasets.captions.asking import Asking, Job
from d4k.datasets.captions.entries import Entry, Source, now
from d4k.datasets.captions.interrupts import patient
from d4k.datasets.captions.log import CaptionLog
from d4k.datasets.captions.pictures import LOG, Folder, Row, read_dataset
from d4k.datasets.captions.progress import Bar
from d4k.datasets.captions.settings import Captioning
from d4k.datasets.captions.spending import Spending, check_budget
from d4k.errors import DataError
from d4k.files import read_bytes, sweep
from d4k.images import open_picture
from d4k.locks import held
from d4k.machine import choose_device
from d4k.protocols import Captioner
from d4k.values import Caption

__all__ = ["Captioned", "caption_folder", "editing", "write_texts"]

LOCK = ".d4k-captions.lock"


@define
class Captioned:
    """What came of captioning.

    Args:
        pictures: of the dataset.
        captioned: pictures that got a caption now.
        refused: answers of now that were refusals.
        empty: answers of now without a caption for another reason.
        had: pictures that had a caption already, or an answer of the same source.
        own: pictures among these whose text is of other origin than the log.
        failures: pictures that could not be captioned, with the reason; they are tried again by the next run.
        tokens_in: that were read for the answers of now.
        tokens_out: that were written.
        cost: of the answers of now in dollars; None where none is known.
        total: dollars that all answers in the log cost.
        changed: texts of the metadata that are others than before.
        stopped: why not all pictures were asked about, in words; empty where they were.
    """

    pictures: int = 0
    captioned: int = 0
    refused: int = 0
    empty: int = 0
    had: int = 0
    own: int = 0
    failures: dict[str, str] = field(factory=dict)
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    total: float = 0.0
    changed: int = 0
    stopped: str = ""

    def count(self, caption: Caption) -> None:
        """Count an answer."""
        self.captioned += caption.usable
        self.refused += caption.refused
        self.empty += not caption.usable and not caption.refused
        self.tokens_in += caption.tokens_in
        self.tokens_out += caption.tokens_out
        if caption.cost is not None:
            self.cost = (self.cost or 0.0) + caption.cost


def caption_folder(root: Path, captioner: Captioner, settings: Captioning, *, quiet: bool = False) -> Captioned:
    """Caption the pictures of a dataset that have no caption yet, and write the texts into its metadata.

    Every answer is in `captions.jsonl` before the next picture is asked about, so a run that was interrupted goes on
    where it ended, and nothing is asked or paid for twice. Equal files are asked about once. Refusals and empty answers
    are kept there, too; they never become a text.

    Args:
        root: folder with `metadata.jsonl`, or several below it, or with pictures alone.
        captioner: describes the pictures.
        settings: of the run.
        quiet: show no progress.

    Raises:
        ConfigError: the captioner cannot work as it is set, or a budget cannot be kept.
        DataError: the dataset cannot be read, or ten pictures in a row could not be captioned.
        OutputError: another process captions the dataset, or the disk is full.
    """
    check_budget(captioner, settings.name, settings.budget)
    with editing(root) as (folders, log):
        run = _Run(captioner, settings, log)
        run.done.pictures = sum(len(folder.rows) for folder in folders)
        try:
            with Bar(run.done.pictures, quiet=quiet) as bar:
                run.go([row for folder in folders for row in folder.rows], bar)
        finally:
            run.done.changed = write_texts(folders, log, every=False)
        run.done.total = log.cost
        return run.done


@contextmanager
def editing(root: Path) -> Iterator[tuple[list[Folder], CaptionLog]]:
    """The folders and the log of a dataset, which no other process changes during the block.

    Raises:
        DataError: the dataset or its log cannot be read.
        OutputError: another process holds the dataset.
    """
    _refuse_no_folder(root)
    refusal = f"another process captions {root}; wait until it has ended"
    with held(root / LOCK, refusal):
        folders = read_dataset(root)
        for folder in folders:
            sweep(folder.path)
        yield folders, CaptionLog(root / LOG)


def _refuse_no_folder(root: Path) -> None:
    """Refuse what is no folder, before a lock is made in it."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; name one that holds pictures", root)


def write_texts(folders: list[Folder], log: CaptionLog, *, every: bool = True) -> int:
    """Write the texts that follow from the log into the metadata.

    Args:
        folders: of the dataset.
        log: of it.
        every: read also the files whose SHA-256 is not known yet; without it their texts stay.

    Returns:
        How many texts changed.
    """

    def text_of(row: Row) -> str | None:
        if not (every or row.known):
            return row.text
        try:
            return log.text(row.digest, row.text)
        except DataError:  # a file that cannot be read has no caption, and keeps the text it has
            return row.text

    return sum(folder.write(text_of) for folder in folders)


class _Run:
    """One run over the pictures."""

    def __init__(self, captioner: Captioner, settings: Captioning, log: CaptionLog) -> None:
        self.captioner, self.settings, self.log, self.done = captioner, settings, log, Captioned()
        self.source = Source(settings.name, dict(captioner.identity), settings.instruction)
        self.spending = Spending(settings.budget, log.cost, log.dearest(self.source))
        self.asked: set[str] = set()

    def go(self, rows: list[Row], bar: Bar) -> None:
        """Ask about what is to be asked about, and keep the answers."""
        count = self.settings.concurrency if getattr(self.captioner, "concurrent", False) else 1
        with patient() as interrupt:
            asking = Asking(self._ask, count, self.spending.allows, interrupt)
            for job, answer in asking.answers(self._jobs(rows, bar)):
                if isinstance(answer, DataError):
                    self.done.failures[job.row.name] = str(answer)
                else:
                    self._keep(job, tidied(answer))
                bar.step(self.done, self.spending.spent)
        if asking.stopped:
            self.done.stopped = self.done.stopped or self._budget_words()

    def _jobs(self, rows: list[Row], bar: Bar) -> Iterator[Job]:
        """The pictures to ask about, one by one as they are wanted: finding out may take reading a file."""
        for row in rows:
            try:
                digest = row.digest
            except DataError as error:
                self.done.failures[row.name] = str(error)
                bar.step(self.done, self.spending.spent)
                continue
            if not self._wanted(digest, row):
                self.done.had += 1
                bar.step(self.done, self.spending.spent)
                continue
            if len(self.asked) == self.settings.limit:
                self.done.stopped = f"as many pictures were asked about as the limit allows, {self.settings.limit}"
                return
            if not self.asked:  # a run that has nothing to ask needs no weights and no key
                self.captioner.load(choose_device(self.settings.device))
            self.asked.add(digest)
            yield Job(row, digest)

    def _wanted(self, digest: str, row: Row) -> bool:
        """Whether a picture is to be asked about."""
        own = self.log.is_own(digest, row.text)
        self.done.own += own
        if digest in self.asked or self.log.asked(digest, self.source) or self.log.corrected(digest):
            return False
        last = self.log.last(digest)
        return self.settings.again or not (own or (last is not None and last.caption.usable))

    def _ask(self, job: Job) -> Caption:
        """The answer about a picture; called in several threads."""
        content = read_bytes(job.row.file, DataError)
        if sha256(content).hexdigest() != job.sha256:
            raise DataError(f"{job.row.file} is not the file that its metadata names, by its SHA-256; build it again")
        image = open_picture(lambda: BytesIO(content), label=str(job.row.file))
        job.reached = True
        return self.captioner.caption(image, self.settings.instruction)

    def _keep(self, job: Job, caption: Caption) -> None:
        own = self.log.is_own(job.sha256, job.row.text)
        replaces = job.row.text if own and caption.usable else None
        self.log.append(Entry(job.sha256, job.row.name, self.source, caption, now(), replaces))
        self.spending.add(caption.cost)
        self.done.count(caption)

    def _budget_words(self) -> str:
        return (
            f"the budget of {self.settings.budget:g} dollars does not cover another answer: {self.log.cost:.4f} are "
            "spent, those of earlier runs among them. A larger budget goes on from here"
        )
