"""Options of metrics on the command line and in TOML, and what is refused of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from d4k.cli import main
from d4k.evaluation import read_evaluation, read_rows


@pytest.fixture(autouse=True)
def here(fake_plugin: None, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the photos, with the fake metric installed."""
    monkeypatch.chdir(photos.parent)


def measured(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["evaluate", "photos", *arguments, "--json", "scores.json"])
    assert result.exit_code == 0, result.output
    (system,) = json.loads(Path("scores.json").read_text())["systems"]
    (score,) = system["scores"]
    return score  # type: ignore[no-any-return]


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["evaluate", "photos", *arguments])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    return str(result.stderr)


def test_options_come_from_the_command_line_and_from_toml() -> None:
    """The same score, with the settings that made it; the command line counts more."""
    plain = measured("--metric", "brightness")
    double = measured("--metric", "brightness", "--metric-option", "brightness.scale=2.0")
    assert double["value"] == pytest.approx(2 * plain["value"])
    Path("m.toml").write_text("[metrics.brightness]\nscale = 2.0\n")
    assert measured("--config", "m.toml") == double
    assert measured("--config", "m.toml", "--metric-option", "brightness.scale=3.0")["settings"]["scale"] == 3.0
    assert measured("--config", "m.toml", "--metric", "brightness") == double


@pytest.mark.parametrize(
    ("toml", "arguments", "message"),
    [
        ("", ("--metric-option", "scale=2"), "cannot read --metric-option 'scale=2'; write NAME.KEY=VALUE"),
        ("", ("--metric-option", "brightness.scale"), "cannot read the setting 'brightness.scale'"),
        (
            "",
            ("--metric-option", "brightnes.scale=2"),
            "'brightnes', which is not measured; did you mean 'brightness'?",
        ),
        ("", ("--metric-option", "brightness.scal=2"), "has no option 'scal'; did you mean 'scale'? Options: scale."),
        ("", ("--metric-option", "brightness.scale=big"), "option 'scale' must be float, got 'big'"),
        ("[metric.brightness]", (), "unknown key 'metric' in m.toml; did you mean 'metrics'?"),
        ("metrics = 1", (), "m.toml must hold a table for each metric"),
        ("[metrics]\nbrightness = 1", (), "m.toml must hold a table for each metric"),
        ("[metrics.brightnes]", (), "unknown metric 'brightness'|which is not measured"),
        ("= 1", (), "m.toml is not valid TOML"),
    ],
)
def test_wrong_options_are_one_line(toml: str, arguments: tuple[str, ...], message: str) -> None:
    """What was given, and what is allowed."""
    Path("m.toml").write_text(toml)
    said = refused("--metric", "brightness", "--config", "m.toml", *arguments)
    assert any(part in said for part in message.split("|")), said


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(main, ["evaluate", *arguments, "--metric", "brightness", "--resamples", "20"])
    assert result.exit_code == 0, result.output
    return result


def test_output_holds_scores_and_rows_and_is_gone_on_with() -> None:
    """The second run finds everything, and says the same."""
    first = run("photos", "--output", "scores").stdout
    found = read_evaluation(Path("scores"))
    assert (found.name, found.scores[0].count, found.rows) == ("photos", 5, "rows")
    assert len(read_rows(Path("scores"), found, "brightness")) == 5
    again = run("photos", "--output", "scores")
    assert again.stdout == first
    assert "measuring" not in again.stderr
    assert read_evaluation(Path("scores")) == found


def test_several_folders_are_rows_of_one_table_and_share_their_rows() -> None:
    """Each has its name and a folder of scores below the output."""
    shutil.copytree("photos", "others")
    Path("others/4.png").unlink()
    said = run(
        "photos",
        "others",
        "--name",
        "before",
        "--name",
        "after",
        "--output",
        "scores",
        "--json",
        "all.json",
        "--latex",
        "t.tex",
    )
    assert [line.split()[0] for line in said.stdout.splitlines()[1:3]] == ["before", "after"]
    assert said.stdout.splitlines()[-2:] == ["before: 5 images", "after: 4 images"]
    evaluations = [read_evaluation(Path("scores", name)) for name in ("before", "after")]
    assert [(one.name, one.rows, len(one.pictures)) for one in evaluations] == [
        ("before", "../rows", 5),
        ("after", "../rows", 4),
    ]
    assert evaluations[0].pictures[0].keys == evaluations[1].pictures[0].keys
    assert "before" in Path("t.tex").read_text()
    systems = json.loads(Path("all.json").read_text())["systems"]
    assert [system["name"] for system in systems] == ["before", "after"]


def test_prompts_are_those_of_the_folder(install: Any) -> None:
    """Of its index.jsonl, without being asked."""
    lines = [{"file": f"{number}.png", "prompt": f"a cat {number}", "seed": number} for number in range(5)]
    Path("photos/index.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run("photos", "--output", "scores")
    pictures = read_evaluation(Path("scores")).pictures
    assert [(picture.prompt, picture.seed) for picture in pictures] == [(f"a cat {n}", n) for n in range(5)]


def test_faults_are_printed_and_strict_refuses_them() -> None:
    """Each with its file; the score says how many it rests on."""
    Path("photos/3.png").write_bytes(b"")
    lines = run("photos").stdout.splitlines()
    assert lines[-3:] == [
        "brightness: 1 of 5 pictures was left out: 1 empty.",
        "photos/3.png: empty. The file has no bytes.",
        "4 images",
    ]
    assert "1 fault in the files, and none is allowed: photos/3.png is empty." in refused(
        "--metric", "brightness", "--strict"
    )
    for number in range(30):
        Path(f"photos/x{number}.png").touch()
    assert run("photos").stdout.splitlines()[-2] == "... and 11 more"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--name", "a", "--name", "b"), "1 folders, but 2 names: give one --name for each, or none"),
        (("--name", "a/b"), "'a/b' cannot name a folder of scores; give another with --name"),
        (("--name", "rows"), "'rows' cannot name a folder of scores"),
        (("photos",), "two folders are called 'photos'; tell them apart with --name, once for each folder"),
        (("--latex", "a.txt"), "cannot write scores to 'a.txt': the ending must be .tex"),
        (("--device", "abacus"), "device 'abacus' is not available here"),
        (("--references", "nowhere"), "nowhere is not a folder"),
    ],
)
def test_wrong_settings_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("--metric", "brightness", *arguments)


def test_processes_of_a_launch_need_a_folder_for_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, those that are not the first say nothing."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert "several processes share their rows in a folder: name one with --output" in refused("--metric", "brightness")
    assert run("photos", "--output", "scores").stdout == ""
    assert not Path("scores/scores.json").exists()


def test_faults_are_named_from_where_the_command_is_given_in_one_line() -> None:
    """`scores.json` names files from its own folder, where nobody stands; a name may hold what steers a terminal."""
    Path("photos/empty\n\x1b[31m.png").touch()
    said = run("photos", "--output", "scores").stdout
    assert "\nphotos/empty [31m.png: empty. The file has no bytes.\n" in said
