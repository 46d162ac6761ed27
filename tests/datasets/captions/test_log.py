"""The log of captions survives kills, and says which text a picture is to have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4k import Caption, DataError, OutputError
from d4k.datasets.captions.answers import is_refusal, tidied
from d4k.datasets.captions.entries import Entry, Source
from d4k.datasets.captions.log import CaptionLog

SHA = "a" * 64
MODEL, OTHER, PERSON = (
    Source("told", {"model": "m"}, "Describe."),
    Source("told", {"model": "n"}, "Describe."),
    Source(None),
)


def entry(text: str, source: Source = MODEL, **more: Any) -> Entry:
    caption = Caption(text, reason="" if text else "nothing", **more)
    return Entry(SHA, "a.png", source, caption, "2025-01-31T12:00:00Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "captions.jsonl"


def test_what_is_appended_is_read_again(path: Path) -> None:
    """Every field of it, in any script."""
    written = entry("ein Café 港", refused=False, tokens_in=3, tokens_out=4, model="m-1", cost=0.25)
    CaptionLog(path).append(written)
    found = CaptionLog(path)
    assert found.entries == {SHA: [written]}
    assert found.cost == 0.25
    assert found.dearest(MODEL) == 0.25
    assert found.dearest(OTHER) is None


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 200, 300])
def test_a_line_that_a_kill_cut_off_is_lost_and_no_other(path: Path, cut: int) -> None:
    """Wherever it was cut; the next line begins on its own. A line that lacks its end alone is whole."""
    log = CaptionLog(path)
    for text in ("one", "two"):
        log.append(entry(text))
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    reopened = CaptionLog(path)
    wanted = ["one", "two"] if cut == 1 else ["one"]
    assert [each.caption.text for each in reopened.entries[SHA]] == wanted
    reopened.append(entry("three"))
    assert [each.caption.text for each in CaptionLog(path).entries[SHA]] == [*wanted, "three"]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "has the format 2, and this d4k reads format 1"),
        ({"text": None}, "'text' is None"),
        ({"refused": 1}, "'refused' is 1"),
        ({"tokens_in": True}, "'tokens_in' is True"),
        ({"identity": "m"}, "'identity' is 'm'"),
    ],
)
def test_a_damaged_line_is_an_error_with_its_number(path: Path, change: dict[str, Any], reason: str) -> None:
    """Answers that were paid for are not passed over in silence."""
    row = json.loads(entry("one").line()) | change
    path.write_bytes(entry("one").line() + json.dumps(row).encode() + b"\n" + entry("two").line())
    with pytest.raises(DataError, match="line 2") as caught:
        CaptionLog(path)
    assert reason in str(caught.value)
    assert caught.value.line == 2


def test_a_disk_that_is_full_leaves_no_part_of_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CaptionLog(path)
    log.append(entry("one"))
    before = path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OutputError, match="No space left on device; what was captioned before is kept"):
        log.append(entry("two"))
    assert path.read_bytes() == before
    assert len(log.entries[SHA]) == 1


@pytest.mark.parametrize(
    ("entries", "present", "wanted"),
    [
        ([], None, None),
        ([], "own", "own"),
        ([entry("one")], None, "one"),
        ([entry("one")], "own", "own"),
        ([entry("one"), entry("two", OTHER)], "one", "two"),
        ([entry("one"), entry("", OTHER)], "one", "one"),
        ([entry("")], None, None),
        ([entry("one"), entry("mine", PERSON), entry("two", OTHER)], "one", "mine"),
        ([entry("mine", PERSON), entry("better", PERSON)], None, "better"),
        ([entry("one"), entry("", PERSON)], "one", None),
        ([entry("", PERSON), entry("one")], None, None),
        ([entry("", PERSON), entry("mine", PERSON)], None, "mine"),
    ],
)
def test_a_person_counts_more_than_a_model_and_a_caption_more_than_a_refusal(
    path: Path, entries: list[Entry], present: str | None, wanted: str | None
) -> None:
    log = CaptionLog(path)
    for each in entries:
        log.append(each)
    assert CaptionLog(path).text(SHA, present) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, I can’t help with identifying people.",
        "Sorry, I cannot help with that.",
        "I cannot describe this image.",
        "I can't tell.",
        "I am unable to view images.",
        "Unfortunately, I cannot see the picture.",
        "I won't describe this.",
        "As an AI language model, I do not see pictures.",
        "My apologies, I can't do that.",
        "I do not feel comfortable describing this.",
    ],
)
def test_refusals_in_plain_words_are_found(text: str) -> None:
    found = tidied(Caption(text, tokens_out=7))
    assert (found.text, found.refused, found.reason, found.tokens_out) == ("", True, text, 7)


@pytest.mark.parametrize(
    "text",
    [
        "A sorry little boat lies on dry land.",
        "Sorry-looking umbrellas in the rain.",
        "Ice floes drift under a pale sun.",
        "A sign reads 'I cannot help you'.",
        "An artificial lake between pines.",
        "I-beams of a skyscraper under construction.",
        "Unfortunate weather over a regatta.",
    ],
)
def test_descriptions_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)
    assert tidied(Caption(text)) == Caption(text)


@given(st.text(st.characters(exclude_categories=[])))
def test_a_caption_is_one_line_that_any_file_can_hold(text: str) -> None:
    """Whatever a model writes, half characters among it; tidied twice, it is the same."""
    found = tidied(Caption(text))
    assert found.text == " ".join(found.text.split())
    assert found.text.encode("utf-8").decode("utf-8") == found.text
    assert found.usable or found.reason
    assert tidied(found) == found
