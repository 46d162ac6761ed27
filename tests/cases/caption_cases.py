"""What tests of captions share: pictures, datasets of them, and captioners that do as they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from PIL import Image

from d4k import Caption, DataError

__all__ = ["Told", "dataset", "log_rows", "metadata", "picture"]


def picture(path: Path, number: int, size: tuple[int, int] = (24, 16)) -> Path:
    """A picture of one colour, whose first channel is its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number, 60, 90)).save(path)
    return path


def dataset(root: Path, rows: Mapping[str, Mapping[str, Any]]) -> Path:
    """A folder with `metadata.jsonl` and a picture for each row, numbered from 0; more keys of a row are kept."""
    lines = []
    for number, (name, values) in enumerate(rows.items()):
        picture(root / name, number)
        lines.append(json.dumps({"file_name": name, **values}) + "\n")
    (root / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return root


def metadata(root: Path) -> dict[str, dict[str, Any]]:
    """The lines of `metadata.jsonl` by the name of their picture."""
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["file_name"]: row for row in rows}


def log_rows(root: Path) -> list[dict[str, Any]]:
    """The lines of the log."""
    return [json.loads(line) for line in (root / "captions.jsonl").read_text(encoding="utf-8").splitlines()]


@define
class Told:
    """Answers picture number i with `answers[i]`, or else "picture i"; an error in its place is raised.

    Attributes:
        seen: numbers of the pictures it was asked about, in order.
        most: calls that were under way at once.
    """

    answers: Mapping[int, Any] = field(factory=dict)
    model: str = field(default="told", kw_only=True)
    concurrent: bool = field(default=False, kw_only=True)
    before: Callable[[int], Any] = field(default=lambda number: None, kw_only=True)
    seen: list[int] = field(factory=list, init=False)
    asked: list[str] = field(factory=list, init=False)
    loads: list[str] = field(factory=list, init=False)
    most: int = field(default=0, init=False)
    _now: int = field(default=0, init=False)
    _lock: Any = field(factory=threading.Lock, init=False)

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": self.model}

    def load(self, device: Any) -> None:
        self.loads.append(str(device))

    def caption(self, image: Image.Image, instruction: str) -> Caption:
        number = image.getpixel((0, 0))[0]  # type: ignore[index]
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.seen.append(number)
            self.asked.append(instruction)
        try:
            self.before(number)
            answer = self.answers.get(
                number, Caption(f"picture {number}", tokens_in=10, tokens_out=2, model=self.model)
            )
            if isinstance(answer, BaseException):
                raise answer
            return Caption(answer) if isinstance(answer, str) else answer
        finally:
            with self._lock:
                self._now -= 1


@define
class Priced(Told):
    """As `Told`, and has prices."""

    prices: tuple[float, float] | None = field(default=(1.0, 1.0), kw_only=True)


def failures(numbers: Sequence[int]) -> dict[int, DataError]:
    """Answers that are failures."""
    return {number: DataError(f"no answer about {number}") for number in numbers}
