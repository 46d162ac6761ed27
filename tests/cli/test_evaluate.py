"""Options of metrics on the command line and in TOML, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from d4k.cli import main


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
