"""A new plugin passes its own tests before a line is changed; names that cannot be are refused, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from d4k.cli import main
from d4k.errors import OutputError
from d4k.scaffold import KINDS, write_plugin


def as_installed(folder: Path) -> Path:
    """Beside the package what an installation leaves: the entry point. Returns what belongs on the path."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    source = folder / "src"
    (name, module), *_ = project["entry-points"]["d4k"].items()
    info = source / f"{module}-0.1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[d4k]\n{name} = {module}\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    return source


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with all that was written in `tmp_path` installed."""
    sources = [str(as_installed(folder)) for folder in tmp_path.glob("d4k-*")]
    path = os.pathsep.join([*sources, *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "D4K_PLUGINS": ",".join(f"my-{kind}" for kind in KINDS)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


SCRIPT = """import sys, pytest
from d4k.cli import main
code = pytest.main(['-q', '-p', 'no:cacheprovider', '--import-mode=importlib', *sys.argv[1:]])
main(['plugins'], standalone_mode=False)
sys.exit(code)
"""


def test_new_plugins_pass_their_own_tests_and_are_listed(tmp_path: Path) -> None:
    """One of each kind; then `d4k plugins` shows all, and none failed to load."""
    for kind in KINDS:
        result = CliRunner().invoke(main, ["new", kind, f"my-{kind}", "--output", str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert f"pip install -e {tmp_path / f'd4k-my-{kind}'}" in result.output
    found = run(tmp_path, "-c", SCRIPT, *(f"d4k-my-{kind}" for kind in KINDS))
    assert found.returncode == 0, found.stdout
    for kind in KINDS:
        assert f"my-{kind}" in found.stdout.partition("kind ")[2]
    assert "Problems" not in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("loss", "My Loss"),
            "'My Loss' is no name of a plugin; use small letters, digits and hyphens, such as my-loss",
        ),
        (("loss", "-x"), "No such option"),
        (("loss", "../x"), "'../x' is no name of a plugin"),
        (("loss", "d4k-l1"), "leave out 'd4k-': it is put before the name"),
        (("loss", "mse"), "loss 'mse' exists already, in d4k"),
        (("metric", "brightness"), "metric 'brightness' exists already, in d4k-fake"),
        (("loss", "wavelet"), "a module d4k_wavelet is installed already"),
        (
            ("backbone", "x", "--pipeline", "LuminaPipeline"),
            "unknown pipeline 'LuminaPipeline'; did you mean 'Lumina2P",
        ),
        (("loss", "x", "--pipeline", "Lumina2Pipeline"), "a pipeline was given for a loss"),
        (("optimizer", "x"), "'optimizer' is not one of"),
    ],
)
def test_what_cannot_be_is_refused(fake_plugin: None, tmp_path: Path, arguments: Any, message: str) -> None:
    """In one line, and nothing is made."""
    result = CliRunner().invoke(main, ["new", *arguments, "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert message in result.output + result.stderr
    assert not list(tmp_path.iterdir())


def test_folder_that_exists_is_left_alone(fake_plugin: None, tmp_path: Path) -> None:
    """Also an empty one."""
    folder = write_plugin("loss", "one", tmp_path)
    before = sorted(folder.rglob("*"))
    with pytest.raises(OutputError, match="d4k-one exists already; choose another name"):
        write_plugin("loss", "one", tmp_path)
    assert sorted(folder.rglob("*")) == before
