"""`d4k cache`: what is filled is what the run reads, and what is damaged is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from d4k.cli import main


def d4k(*words: object) -> Result:
    return CliRunner().invoke(main, ["cache", *map(str, words)])


@pytest.fixture
def recipe(tmp_path: Path, photos: Path, fake_plugin: None) -> Path:
    """A run of the fake model on five pictures."""
    path = tmp_path / "run.toml"
    path.write_text(
        f'model = "fake-model"\noutput_dir = "{tmp_path}/runs/first"\n'
        f'dataset = {{ name = "folder", options = {{ path = "{photos}" }} }}\nloss = {{ name = "mse" }}\n'
        "data = { width = 16, height = 16 }\n"
    )
    return path


def figures(result: Result) -> dict[str, str]:
    lines = (line.split("  ", 1) for line in result.stdout.splitlines())
    return {name: value.strip() for name, value in lines}


def test_a_run_is_filled_once_beside_its_output(recipe: Path, tmp_path: Path) -> None:
    first, second = d4k(recipe), d4k("fill", recipe)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    wanted = {"pictures": "5", "latents encoded now": "5", "latents found": "0", "captions encoded now": "6"}
    assert wanted.items() <= figures(first).items()
    assert {"latents encoded now": "0", "latents found": "5", "captions found": "6"}.items() <= figures(second).items()
    assert figures(first)["folder"] == str(tmp_path / "runs" / "d4k-cache")
    assert not (tmp_path / "runs" / "first").exists()


def test_another_size_by_option_encodes_pictures_and_finds_captions(recipe: Path) -> None:
    d4k(recipe)
    again = figures(d4k(recipe, "--set", "data.width=12"))
    assert {"latents encoded now": "5", "captions found": "6"}.items() <= again.items()


def test_stats_verify_and_repair_say_what_is_there(recipe: Path, tmp_path: Path) -> None:
    d4k(recipe)
    cache = tmp_path / "runs" / "d4k-cache"
    rows = [line.split() for line in d4k("stats", cache).stdout.splitlines()]
    assert [(row[0], row[2], row[3], row[4]) for row in rows[1:]] == [
        ("latent", "bfloat16", "5", "1"),
        ("text", "bfloat16", "6", "1"),
    ]
    assert d4k("verify", cache).stdout == "11 entries are as they were written\n"
    (shard,) = (cache / "shards").glob("latent-*")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    damaged = d4k("verify", cache)
    assert damaged.exit_code == 1
    assert "10 entries are as they were written" in damaged.stdout
    assert f"d4k cache repair {cache}" in damaged.stdout
    assert d4k("repair", cache).stdout.endswith("10 entries remain\n")
    assert d4k("verify", cache).exit_code == 0


def test_a_picture_that_cannot_be_encoded_is_named(recipe: Path, photos: Path) -> None:
    whole = (photos / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    stopped = d4k(recipe)
    assert stopped.exit_code == 2
    assert "2.png cannot be read" in stopped.stderr
    skipped = d4k(recipe, "--set", "data.unreadable=skip")
    assert skipped.exit_code == 0
    assert "2.png" in skipped.stderr
    assert {"pictures": "4", "unreadable": "1", "latents found": "4"}.items() <= figures(skipped).items()


@pytest.mark.parametrize("settings", [["data.cache=off"], ["data.crop=random"]])
def test_a_run_without_a_cache_is_refused(recipe: Path, settings: list[str]) -> None:
    result = d4k(recipe, *[word for setting in settings for word in ("--set", setting)])
    assert result.exit_code == 2
    assert "no cache to fill" in result.stderr


def test_a_folder_that_is_no_cache_is_one_line(tmp_path: Path) -> None:
    result = d4k("stats", tmp_path)
    assert result.exit_code == 2
    assert "is no cache of d4k" in result.stderr
