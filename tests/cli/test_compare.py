"""`d4k compare`: from two measured folders to tables, files and figures, and refusals of one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import define, field
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from d4k import hookimpl
from d4k.cli import main
from d4k.evaluation import Measuring, find_subjects, measure
from d4k.plugins import create


@define(slots=False)
class Grey:
    """Mean grey level times `scale`."""

    scale: float = field(default=1.0, kw_only=True)
    needs = frozenset({"image"})
    higher_is_better = True
    unit = "levels"

    def load(self, device: torch.device) -> None:
        """Nothing."""

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        return torch.stack([each.double().mean()[None] for each in image])

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean()) * self.scale


@define(slots=False)
class Offset(Grey):
    """How far the mean of a set is from that of the references."""

    needs = frozenset({"image", "references"})
    higher_is_better = False

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        assert references is not None
        return float((rows.mean() - references.mean()).abs())


class Plugin:
    """Both, as a third party would publish them."""

    @staticmethod
    @hookimpl
    def register_metrics(register: Any) -> None:
        register("brightness", f"{__name__}:Grey", summary="mean grey level")
        register("offset", f"{__name__}:Offset", summary="from the mean grey level of a set")


def pictures(folder: str, levels: Sequence[int], first: int = 0) -> Path:
    Path(folder).mkdir()
    for number, level in enumerate(levels, first):
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(Path(folder) / f"{number}.png")
    return Path(folder)


def measured(folder: Path, output: str, metric: str = "brightness", references: str = "", **options: Any) -> None:
    settings = Measuring(
        output=Path(output), name=folder.name, workers=1, resamples=20, device="cpu",
        references=sorted(Path(references).glob("*.png")) if references else (),
    )  # fmt: skip
    measure(find_subjects(folder), {metric: create("metric", metric, **options)}, settings)


@pytest.fixture(autouse=True)
def here(install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two systems of four pictures, `old` and `new`; the new ones are brighter by 20 levels."""
    install(light=Plugin)
    monkeypatch.chdir(tmp_path)
    for name, levels in (("old", (0, 41, 80, 121)), ("new", (20, 61, 100, 141))):
        measured(pictures(name, levels), f"{name}-scores")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["compare", *arguments])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    return str(result.stderr)


def test_two_folders_become_a_line_a_metric() -> None:
    lines = run("old-scores", "new-scores").splitlines()
    assert lines[0] == "new against old"
    assert lines[3].split()[:6] == ["brightness", "[levels]", "↑", "60.5000", "80.5000", "+20.0000"]
    assert lines[3].split()[8:] == ["yes", "new", "0.1250", "0.1250", "4", "0", "0", "4"]


def test_votes_and_files_are_written(tmp_path: Path) -> None:
    vote = {"row": "0", "prompt": None, "a": "old", "b": "new", "choice": "b", "left": "a", "seconds": 1}
    Path("v.json").write_text(
        json.dumps({"format": 1, "kind": "d4k-votes", "votes": [{**vote, "row": row} for row in "012"]})
    )
    files = ("--json", "c.json", "--markdown", "c.md", "--latex", "c.tex", "--figures", "figures")
    assert "new over old  100 % [44, 100]" in run("old-scores", "new-scores", "--votes", "v.json", *files)
    assert json.loads(Path("c.json").read_text())["differences"][0]["real"] is True
    assert Path("c.md").read_text().startswith("## new against old")
    assert r"new & \textbf{" in Path("c.tex").read_text()
    assert len(list(Path("figures").iterdir())) == 6


def test_votes_say_who_voted_and_on_which_side() -> None:
    """Below the tables and in the JSON; a second vote of a person on a pair replaces the first."""
    vote = {"row": "0", "prompt": "", "a": "old", "b": "new", "choice": "b", "left": "b", "seconds": 1}
    for voter in ("anna", "ben"):
        votes = [{**vote, "choice": "a"}, vote, {**vote, "row": "1", "choice": "tie"}]
        head = {"format": 1, "kind": "d4k-votes", "created": "2026-11-25T00:00:00Z", "voter": voter}
        Path(f"{voter}.json").write_text(json.dumps({**head, "votes": votes}))
    shown = run("old-scores", "new-scores", "--votes", "anna.json", "--votes", "ben.json", "--json", "c.json")
    assert "new over old  75 % [30, 95]" in shown
    assert "- Votes: 2 people gave 4; a tie counts half for both" in shown
    assert "- Votes: 2 more do not count" in shown
    assert "- Votes: the picture on the left was preferred in 100 % [34, 100] of the 2 that are no ties." in shown
    content = json.loads(Path("c.json").read_text())
    assert (content["votes"][0]["rate"], content["votes"][0]["ties"], len(content["remarks"])) == (0.75, 2, 3)


def test_all_pairs_are_compared_when_asked_and_draws_follow_the_seed() -> None:
    measured(pictures("odd", (200, 10, 150, 90)), "odd-scores")
    folders = ("old-scores", "new-scores", "odd-scores")

    def heads(*more: str) -> list[str]:
        return [line for line in run(*folders, *more).splitlines() if " against " in line]

    assert heads() == ["new against old", "odd against old"]
    assert heads("--all-pairs") == ["new against old", "odd against old", "odd against new"]

    def interval(*more: str) -> Any:
        run(*folders, "--json", "c.json", *more)
        return json.loads(Path("c.json").read_text())["differences"][1]["interval"]

    plain = interval("--resamples", "40")
    assert interval("--resamples", "40", "--seed", "0") == plain
    assert interval("--resamples", "40", "--seed", "1") != plain
    assert interval("--resamples", "41") != plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("old-scores",), "it takes two systems to compare, got 1"),
        (("old-scores", "old"), "old holds neither scores.json nor the manifest.json of a benchmark"),
        (("old-scores", "none"), "there is no folder none"),
        (("old-scores", "new-scores", "--json", "c.txt"), "cannot write 'c.txt': the ending must be .json"),
        (("old-scores", "new-scores", "--votes", "none.json"), "cannot read none.json"),
        (("old-scores", "old-scores"), "old-scores is named 2 times; name each system once"),
        (("old-scores", "old/0.png"), "0.png"),
    ],
)
def test_what_cannot_be_compared_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*arguments)


def test_other_settings_and_references_are_refused_by_name() -> None:
    """With both values, before anything is computed."""
    measured(Path("new"), "double", scale=2.0)
    assert "brightness: scale is 1.0 in old and 2.0 in new; measure both alike" in refused("old-scores", "double")
    for name, levels in (("dark", (1, 2)), ("light", (250, 251))):
        pictures(name, levels)
    measured(Path("old"), "old-dark", "offset", "dark")
    measured(Path("new"), "new-light", "offset", "light")
    measured(Path("new"), "new-dark", "offset", "dark")
    said = refused("old-dark", "new-light")
    assert "offset: old and new were compared with different sets of reference pictures (2 each)" in said
    assert run("old-dark", "new-dark").splitlines()[3].split()[0] == "offset"
    assert "old and new have no metric in common (old: brightness; new: offset)" in refused("old-scores", "new-dark")


def test_what_has_nothing_in_common_or_no_scores_is_refused() -> None:
    """Other names of files, a benchmark that was not finished, a file of scores that is none, a vote for others."""
    measured(pictures("other", (3, 4), first=7), "other-scores")
    assert "old and other have no picture in common: they were paired by id" in refused("old-scores", "other-scores")
    Path("bench").mkdir()
    Path("bench/manifest.json").write_text('{"models": [{"name": "new"}]}')
    assert "the benchmark bench has no scores yet; run it again to finish it" in refused("old-scores", "bench")
    Path("broken").mkdir()
    Path("broken/scores.json").write_text('{"format": 2, "name": 3}')
    assert "broken" in refused("old-scores", "broken")
    vote = {"row": "0", "prompt": "", "a": "old", "b": "newer", "choice": "b", "left": "b", "seconds": 1}
    Path("v.json").write_text(json.dumps({"format": 1, "kind": "d4k-votes", "votes": [vote]}))
    said = refused("old-scores", "new-scores", "--votes", "v.json")
    assert "v.json: votes[0]: b is 'newer', which is not compared; did you mean 'new'? Compared: old, new." in said


def test_the_help_has_an_example_and_loads_nothing_heavy() -> None:
    """It is shown in an instant."""
    code = (
        "import sys; from click.testing import CliRunner; from d4k.cli import main;"
        "result = CliRunner().invoke(main, ['compare', '--help']); assert result.exit_code == 0, result.output;"
        "assert 'd4k compare scores/before scores/after' in result.output;"
        "assert not {'torch', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
