"""`d4k data caption`: captions, the page that reviews them, and corrections, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from caption_cases import Told, dataset, log_rows, metadata
from click.testing import CliRunner, Result
from PIL import Image

from d4k import Caption, DataError, hookimpl
from d4k.cli import main


@define
class Words(Told):
    """Says one word of every picture; costs a dollar where it is told so."""

    word: str = "harbour"
    dear: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        return {"word": self.word}

    @property
    def prices(self) -> tuple[float, float] | None:
        return (1.0, 1.0) if self.dear else None

    def caption(self, image: Image.Image, instruction: str) -> Caption:
        number = image.getpixel((0, 0))[0]  # type: ignore[index]
        if self.word == "broken":
            raise DataError(f"no answer about {number}")
        if self.word == "refused" and number == 0:
            return Caption("", True, "it will not")
        return Caption(f"{self.word} {number}", tokens_in=1000, tokens_out=9, cost=1.0 if self.dear else None)


class Plugin:
    @staticmethod
    @hookimpl
    def register_captioners(register: Any) -> None:
        register("words", f"{__name__}:Words", summary="one word")


@pytest.fixture
def data(tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of three pictures, and a captioner `words`."""
    install(words=Plugin)
    monkeypatch.chdir(tmp_path)
    return dataset(tmp_path / "data", {"a.png": {}, "b.png": {}, "c.png": {}})


def d4k(*words: object) -> Result:
    return CliRunner().invoke(main, ["data", "caption", *map(str, words)], catch_exceptions=False)


def test_a_dataset_is_captioned_with_the_options_that_are_set(data: Path) -> None:
    result = d4k(data, "--captioner", "words", "--set", "word=quay", "--instruction", "One word.")
    assert result.exit_code == 0, result.stderr
    assert [row["text"] for row in metadata(data).values()] == ["quay 0", "quay 1", "quay 2"]
    assert {row["instruction"] for row in log_rows(data)} == {"One word."}
    assert "captioned now           3\n" in result.stdout
    assert "tokens                  3,000 read, 27 written\n" in result.stdout
    again = d4k(data, "--captioner", "words", "--set", "word=quay")
    assert "captioned now           0\n" in again.stdout
    assert "had an answer already   3\n" in again.stdout


def test_a_budget_and_a_limit_stop_it_and_say_so(data: Path) -> None:
    words = ("--captioner", "words", "--set", "dear=true")
    result = d4k(data, *words, "--budget", "2.00")
    assert "captioned now           2\n" in result.stdout
    assert "cost                    $2.0000 now, $2.0000 in all\n" in result.stdout
    assert "stopped: the budget of 2 dollars does not cover another answer" in result.stderr
    limited = d4k(data, *words, "--set", "word=quay", "--limit", "1", "--again")
    assert "stopped: as many pictures were asked about as the limit allows, 1" in limited.stderr


def test_refusals_and_failures_are_counted_and_named(data: Path) -> None:
    result = d4k(data, "--captioner", "words", "--set", "word=refused")
    assert "without a caption       1 refused, 0 empty or cut off\n" in result.stdout
    broken = d4k(data, "--captioner", "words", "--set", "word=broken", "--again")
    assert "could not be captioned  3; the next run tries them again\n" in broken.stdout
    assert "a.png: no answer about 0\n" in broken.stderr


def test_a_page_is_written_and_its_corrections_are_read(data: Path) -> None:
    d4k(data, "--captioner", "words")
    shown = d4k(data, "--review", "review.html")
    assert shown.stdout == "review.html shows 3 of 3 pictures; open it in a browser\n"
    first, second, _ = (row["sha256"] for row in log_rows(data))
    corrections = [
        {"sha256": first, "text": "a quay", "bad": False},
        {"sha256": second, "text": "harbour 1", "bad": True},
        {"sha256": "0" * 64, "text": "x", "bad": False},
    ]
    saved = {"file": "d4k caption corrections", "format": 1, "corrections": corrections}
    Path("corrections.json").write_text(json.dumps(saved))
    read = d4k(data, "--corrections", "corrections.json")
    assert read.stdout == "1 captions corrected, 1 marked as bad, 0 known before; 2 texts changed\n"
    assert "1 corrections are of pictures that" in read.stderr
    assert [row.get("text") for row in metadata(data).values()] == ["a quay", None, "harbour 2"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "nothing is to be done; give --captioner NAME, --review PAGE.html or --corrections FILE"),
        (("--review", "r.html", "--budget", "5"), "--budget is for captioning; give --captioner NAME"),
        (("--review", "r.html", "--set", "a=b"), "--set is for captioning"),
        (("--review", "r.txt"), "the ending must be .html"),
        (("--captioner", "word"), "unknown captioner 'word'; did you mean 'words'?"),
        (("--captioner", "words", "--set", "wort=x"), "has no option 'wort'; did you mean 'word'?"),
        (("--captioner", "words", "--budget", "1"), "does not know its prices"),
        (("--captioner", "words", "--budget", "-1"), "budget must be a number of at least 0"),
        (("--captioner", "words", "--instruction", ""), "instruction must be a string that is not empty"),
        (("--corrections", "gone.json"), "cannot read gone.json"),
    ],
)
def test_what_cannot_work_is_one_line_and_nothing_is_written(data: Path, words: tuple[str, ...], reason: str) -> None:
    before = sorted(Path().rglob("*"))
    result = d4k(data, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert reason in result.stderr
    assert sorted(Path().rglob("*")) == before
