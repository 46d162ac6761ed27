"""Captioning a dataset: nothing is asked twice, every answer is kept, and the metadata says what may be trained on."""

from __future__ import annotations

import _thread
import hashlib
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from caption_cases import Priced, Told, dataset, failures, log_rows, metadata, picture
from hypothesis import given
from hypothesis import strategies as st

from d4k import Caption, ConfigError, DataError, OutputError
from d4k.datasets import FolderDataset
from d4k.datasets.captions import INSTRUCTION, Captioned, Captioning, caption_folder
from d4k.datasets.captions.asking import IN_A_ROW
from d4k.locks import held


def run(root: Path, captioner: Any, **settings: Any) -> Captioned:
    return caption_folder(root, captioner, Captioning(name="told", **settings), quiet=True)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three pictures, the first with more in its line, the second with a text of its own."""
    rows: dict[str, dict[str, Any]] = {
        "a.png": {"licence": "CC0-1.0", "width": 24},
        "b.png": {"text": "a café of its own"},
        "below/c.png": {},
    }
    return dataset(tmp_path / "data", rows)


def test_captions_become_the_text_of_the_metadata(three: Path) -> None:
    """Where there was none; every other key stays, and so does a text of other origin."""
    done = run(three, Told())
    assert metadata(three) == {
        "a.png": {"file_name": "a.png", "text": "picture 0", "licence": "CC0-1.0", "width": 24},
        "b.png": {"file_name": "b.png", "text": "a café of its own"},
        "below/c.png": {"file_name": "below/c.png", "text": "picture 2"},
    }
    assert (done.pictures, done.captioned, done.had, done.own, done.changed) == (3, 2, 1, 1, 2)
    assert (done.tokens_in, done.tokens_out, done.cost, done.stopped) == (20, 4, None, "")


def test_the_log_keeps_what_was_asked_of_whom_and_when_with_the_hash_of_the_picture(three: Path) -> None:
    """A line an answer."""
    run(three, Told())
    first, _ = log_rows(three)
    assert first["sha256"] == hashlib.sha256((three / "a.png").read_bytes()).hexdigest()
    assert (first["file"], first["text"], first["refused"]) == ("a.png", "picture 0", False)
    assert (first["captioner"], first["identity"], first["model"]) == ("told", {"model": "told"}, "told")
    assert (first["instruction"], first["tokens_in"], first["tokens_out"]) == (INSTRUCTION, 10, 2)
    assert first["date"].endswith("Z")


def test_a_second_run_asks_nothing_loads_nothing_and_writes_nothing(three: Path) -> None:
    run(three, Told())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in three.glob("*.jsonl")}
    captioner = Told()
    done = run(three, captioner)
    assert (captioner.seen, captioner.loads) == ([], [])
    assert (done.captioned, done.had, done.changed) == (0, 3, 0)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in three.glob("*.jsonl")} == before


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Caption("", True, "it shows a person"), "it shows a person"),
        ("I'm sorry, but I can't help with that.", "I'm sorry, but I can't help with that."),
        (Caption("I cannot describe this.", True), "I cannot describe this."),
    ],
)
def test_a_refusal_is_recorded_and_is_no_text(three: Path, answer: Any, reason: str) -> None:
    """Neither is it asked for again; another model may be."""
    done = run(three, Told({0: answer}))
    row = log_rows(three)[0]
    assert (row["text"], row["refused"], row["reason"]) == ("", True, reason)
    assert "text" not in metadata(three)["a.png"]
    assert (done.refused, done.captioned) == (1, 1)
    again, other = Told(), Told(model="other")
    run(three, again)
    assert again.seen == []
    run(three, other)
    assert other.seen == [0]
    assert metadata(three)["a.png"]["text"] == "picture 0"


@pytest.mark.parametrize("answer", ["", " \n\t", '""', "<think>what is it?</think>\n", "\x00"])
def test_an_empty_answer_is_recorded_and_is_no_text(three: Path, answer: str) -> None:
    done = run(three, Told({0: answer}))
    assert (log_rows(three)[0]["text"], log_rows(three)[0]["reason"]) == ("", "the answer was empty")
    assert "text" not in metadata(three)["a.png"]
    assert (done.empty, done.refused) == (1, 0)


def test_a_text_that_was_there_is_replaced_on_request_only(three: Path) -> None:
    """What it was is in the log, and a text of the log gives way to a new one, too."""
    run(three, Told())
    other = Told({0: "harbour", 2: "I cannot help with that."}, model="other")
    done = run(three, other, again=True)
    assert sorted(other.seen) == [0, 1, 2]
    assert {name: row["text"] for name, row in metadata(three).items()} == {
        "a.png": "harbour",
        "b.png": "picture 1",
        "below/c.png": "picture 2",  # of the model that did not refuse
    }
    assert [row["replaces"] for row in log_rows(three)[-3:]] == [None, "a café of its own", None]
    assert done.refused == 1


def test_a_text_that_somebody_edits_in_the_metadata_stays(three: Path) -> None:
    run(three, Told())
    path = three / "metadata.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("picture 0", "a quay"), encoding="utf-8")
    done = run(three, Told(model="other"))
    assert metadata(three)["a.png"]["text"] == "a quay"
    assert done.own == 2


def test_equal_files_are_asked_about_once(tmp_path: Path) -> None:
    """In all splits of a dataset; both get the text."""
    for split in ("train", "eval"):
        dataset(tmp_path / split, {f"{split}.png": {}})
    captioner = Told()
    done = run(tmp_path, captioner)
    assert captioner.seen == [0]
    assert metadata(tmp_path / "train")["train.png"]["text"] == "picture 0"
    assert metadata(tmp_path / "eval")["eval.png"]["text"] == "picture 0"
    assert (done.captioned, done.had, done.changed) == (1, 1, 2)


def test_pictures_without_a_licence_stay_apart(tmp_path: Path) -> None:
    """They are not sent anywhere unless their folder is named."""
    dataset(tmp_path / "train", {"a.png": {}})
    dataset(tmp_path / "kept-apart" / "train", {"b.png": {}, "c.png": {}})
    captioner = Told()
    assert run(tmp_path, captioner).pictures == 1
    assert run(tmp_path / "kept-apart", captioner).pictures == 2


def test_a_plain_folder_gets_metadata(photos: Path) -> None:
    """With sizes; captions in .txt files are taken over, and it can be read with them as before."""
    (photos / "3.txt").unlink()
    (photos / "4.txt").unlink()
    done = run(photos, Told())
    found = metadata(photos)
    assert [found[f"{i}.png"]["text"] for i in range(3)] == ["picture 0", "picture 1", "picture 2"]
    assert list(found["3.png"]) == ["file_name", "text", "width", "height"]
    assert (found["3.png"]["width"], found["3.png"]["height"]) == (24, 20)
    assert (done.captioned, done.own) == (2, 3)
    assert len(FolderDataset(photos, missing_caption="empty")) == 5
    assert run(photos, Told()).captioned == 0


def test_pictures_that_no_metadata_lists_are_counted(three: Path) -> None:
    picture(three / "extra.png", 9)
    with pytest.warns(UserWarning, match=r"^1 pictures in .* the first is extra\.png"):
        assert run(three, Told()).pictures == 3


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_captioned(three: Path) -> None:
    """Broken, gone, or another file than the metadata names by its SHA-256."""
    (three / "a.png").write_bytes(b"no picture")
    (three / "b.png").unlink()
    path = three / "metadata.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines.append({"file_name": "d.png", "sha256": "0" * 64})
    picture(three / "d.png", 7)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run(three, Told())
    assert set(done.failures) == {"a.png", "b.png", "d.png"}
    assert "cannot be read as PNG" in done.failures["a.png"]
    assert "is not the file that its metadata names" in done.failures["d.png"]
    assert metadata(three)["below/c.png"]["text"] == "picture 2"
    assert metadata(three)["b.png"]["text"] == "a café of its own"


def test_a_failure_of_the_captioner_is_tried_again_by_the_next_run(three: Path) -> None:
    assert set(run(three, Told(failures([0]))).failures) == {"a.png"}
    captioner = Told()
    run(three, captioner)
    assert captioner.seen == [0]


def test_too_many_failures_in_a_row_end_the_run_with_the_last_reason(tmp_path: Path) -> None:
    """What was captioned before is kept, in the metadata, too."""
    root = dataset(tmp_path, {f"{i:02}.png": {} for i in range(IN_A_ROW + 5)})
    captioner = Told(failures(range(2, 99)))
    with pytest.raises(DataError, match=rf"^{IN_A_ROW} pictures in a row .* since no answer about {IN_A_ROW + 1}\."):
        run(root, captioner)
    assert captioner.seen == list(range(IN_A_ROW + 2))
    assert [row.get("text") for row in metadata(root).values()][:3] == ["picture 0", "picture 1", None]


def test_an_error_that_concerns_all_pictures_ends_the_run_and_what_came_before_stays(three: Path) -> None:
    with pytest.raises(ConfigError, match="the key is not valid"):
        run(three, Told({2: ConfigError("the key is not valid")}))
    assert metadata(three)["a.png"]["text"] == "picture 0"
    assert "text" not in metadata(three)["below/c.png"]


def test_an_interrupted_run_keeps_its_answers_and_the_next_goes_on(three: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(three, Told({2: KeyboardInterrupt()}))
    assert metadata(three)["a.png"]["text"] == "picture 0"
    captioner = Told()
    run(three, captioner)
    assert captioner.seen == [2]


def test_pictures_are_asked_about_at_once_where_the_captioner_allows_it(tmp_path: Path) -> None:
    """As many as are asked for: none goes on before all are under way. Others are asked one by one."""
    root = dataset(tmp_path / "a", {f"{i}.png": {} for i in range(12)})
    barrier = threading.Barrier(4)
    captioner = Told(concurrent=True, before=lambda number: barrier.wait(30))
    run(root, captioner, concurrency=4)
    assert captioner.most == 4
    assert [row["text"] for row in metadata(root).values()] == [f"picture {i}" for i in range(12)]
    alone = Told()
    run(dataset(tmp_path / "b", {f"{i}.png": {} for i in range(3)}), alone, concurrency=4)
    assert alone.most == 1


def test_after_ctrl_c_answers_that_were_asked_for_are_still_kept(tmp_path: Path, capsys: Any) -> None:
    """They are paid for. Nothing new is asked, and Ctrl-C is as before when it is over."""
    root = dataset(tmp_path, {f"{i}.png": {} for i in range(9)})
    barrier = threading.Barrier(3, action=_thread.interrupt_main)
    captioner = Told(concurrent=True, before=lambda number: barrier.wait(30))
    with pytest.raises(KeyboardInterrupt):
        run(root, captioner, concurrency=3)
    assert len(log_rows(root)) == len(captioner.seen) == 3
    assert sum("text" in row for row in metadata(root).values()) == 3
    assert "press Ctrl-C again to stop at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_pressed_twice_stops_at_once(tmp_path: Path) -> None:
    """The answer that is under way is lost, and asked for again by the next run."""
    root = dataset(tmp_path, {f"{i}.png": {} for i in range(3)})

    def press(number: int) -> None:
        for _ in range(2 if number == 1 else 0):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(root, Told(before=press))
    assert len(log_rows(root)) == 1
    captioner = Told()
    run(root, captioner)
    assert captioner.seen == [1, 2]


def test_a_budget_is_kept_over_several_runs(tmp_path: Path) -> None:
    """The dearest answer so far is what the next may cost; a larger budget goes on."""
    root = dataset(tmp_path, {f"{i}.png": {} for i in range(9)})
    answers = {i: Caption(f"picture {i}", cost=0.3) for i in range(9)}
    done = run(root, Priced(answers), budget=1.0)
    assert (done.captioned, done.cost, done.total) == (3, pytest.approx(0.9), pytest.approx(0.9))
    assert "the budget of 1 dollars does not cover another answer" in done.stopped
    more = Priced(answers)
    assert run(root, more, budget=1.0).captioned == 0
    assert more.seen == []
    assert run(root, Priced(answers), budget=10.0).stopped == ""
    assert len(log_rows(root)) == 9


@given(costs=st.lists(st.floats(0.01, 1), min_size=1, max_size=12), budget=st.floats(0, 4), count=st.integers(1, 6))
def test_spending_never_exceeds_the_budget_by_more_than_an_answer_dearer_than_those_before(
    costs: list[float], budget: float, count: int
) -> None:
    """Whatever the costs, with as many answers under way as may be."""
    from d4k.datasets.captions.spending import Spending

    spending, waiting, under_way, surprise = Spending(budget), list(costs), list[float](), 0.0
    while True:
        while waiting and len(under_way) < count and spending.allows(len(under_way)):
            under_way.append(waiting.pop(0))
        if not under_way:
            break
        cost = under_way.pop(0)
        surprise += max(0.0, cost - (spending.dearest or 0.0)) * (len(under_way) + 1)
        spending.add(cost)
    assert spending.spent <= budget + surprise + 1e-6
    assert not waiting or spending.exhausted


def test_a_budget_needs_prices(three: Path) -> None:
    """Without them it is refused before anything is asked; where nothing costs anything, it is warned of."""
    captioner = Priced(prices=None)
    with pytest.raises(ConfigError, match="does not know its prices; give dollars for a million tokens"):
        run(three, captioner, budget=1.0)
    assert captioner.loads == []
    with pytest.warns(UserWarning, match="captioner 'told' costs nothing"):
        run(three, Told(), budget=1.0)


def test_a_limit_ends_the_run_early(three: Path) -> None:
    done = run(three, Told(), limit=1)
    assert (done.captioned, done.stopped) == (1, "as many pictures were asked about as the limit allows, 1")
    assert run(three, Told(), limit=1).stopped == ""


def test_the_instruction_is_the_users(three: Path) -> None:
    """Another one asks again for what has no caption only."""
    captioner = Told()
    run(three, captioner, instruction="In French, please.")
    assert set(captioner.asked) == {"In French, please."}
    other = Told()
    run(three, other, instruction="In Greek, please.")
    assert other.seen == []


def test_two_processes_do_not_caption_one_dataset(three: Path) -> None:
    with held(three / ".d4k-captions.lock", ""), pytest.raises(OutputError, match="another process captions"):
        run(three, Told())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{half", "is not readable JSON"),
        (b"[1]", "holds a list"),
        (b'{"text": "x"}', "'file_name' is None"),
        (b'{"file_name": "../a.png"}', "leaves the folder"),
        (b'{"file_name": "/etc/passwd"}', "leaves the folder"),
        (b'{"file_name": "a.png"}', "is in line 1 already"),
        (b'{"file_name": "x.png", "text": 7}', "'text' is 7, not a string"),
    ],
)
def test_a_line_that_cannot_be_used_is_an_error_with_its_number(three: Path, line: bytes, reason: str) -> None:
    """Before anything is asked; the file stays as it is."""
    path, captioner = three / "metadata.jsonl", Told()
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 4") as caught:
        run(three, captioner)
    assert reason in str(caught.value)
    assert captioner.seen == []


def test_a_link_to_a_picture_elsewhere_is_refused(tmp_path: Path) -> None:
    """Nothing of another folder is sent to a server because a line names it."""
    root = dataset(tmp_path / "data", {"a.png": {}})
    picture(tmp_path / "private.png", 5)
    (root / "b.png").symlink_to("../private.png")
    (root / "metadata.jsonl").write_text('{"file_name": "a.png"}\n{"file_name": "b.png"}\n')
    with pytest.raises(DataError, match="line 2: file_name 'b.png' leaves the folder"):
        run(root, Told())


def test_what_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        run(tmp_path / "gone", Told())
    with pytest.raises(DataError, match="holds no picture"):
        run(tmp_path, Told())
    assert list(tmp_path.iterdir()) == []
