"""The tutorial keeps what it says: 150 lines, every method explained, and a plugin that is found when installed."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from d4k.config import RunConfig, from_mapping
from d4k.plugins import discover
from d4k.protocols import Backbone

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial"
PLUGIN = TUTORIAL / "d4k-sana"
SOURCES = sorted((PLUGIN / "src").rglob("*.py"))
TEXT = (TUTORIAL / "index.md").read_text(encoding="utf-8")


def test_the_plugin_has_at_most_150_lines() -> None:
    """Code, docstrings and blank lines of the package, not of its tests."""
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES) <= 150


def test_the_text_lists_the_files() -> None:
    """The tree in the text is the folder."""
    listed = set(re.findall(r"^ {8}(\S+)", TEXT, re.MULTILINE))
    found = {path.relative_to(PLUGIN).as_posix() for path in PLUGIN.rglob("*") if path.is_file()}
    assert listed == {name for name in found if not re.search(r"__pycache__|_cache/|dist/", name)}


def test_the_text_quotes_every_method() -> None:
    """Each method of the backbone is shown from the file, those of the protocol among them."""
    module = ast.parse((PLUGIN / "src" / "d4k_sana" / "backbone.py").read_text(encoding="utf-8"))
    (backbone,) = [node for node in module.body if isinstance(node, ast.ClassDef)]
    methods = {node.name for node in backbone.body if isinstance(node, ast.FunctionDef)}
    assert set(re.findall(r"^:pyobject: SanaBackbone\.(\w+)$", TEXT, re.MULTILINE)) == methods
    public = {name for name, value in vars(Backbone).items() if not name.startswith("_") and callable(value)}
    assert public <= methods


def test_what_the_text_quotes_exists() -> None:
    """Every function and every line that a quotation begins or ends with is in the file it is quoted from."""
    for block in re.findall(r"^```{literalinclude} (.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        name, *options = block.splitlines()
        text = (TUTORIAL / name).read_text(encoding="utf-8")
        for option, value in (line.removeprefix(":").split(": ", 1) for line in options):
            if option != "language":
                assert (f"def {value.rpartition('.')[2]}(" if option == "pyobject" else value.strip('"')) in text, value


def test_its_entry_point_registers_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is written in `pyproject.toml`, with the pipeline that it loads and presets up to 4096 pixels."""
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    registry = discover([EntryPoint(name, module, "d4k") for name, module in project["entry-points"]["d4k"].items()])
    assert not registry.failures
    entry = registry.get("backbone", "sana")
    assert entry.pipelines == ("SanaPipeline",)
    assert max(preset.size for preset in entry.presets) == 4096
    assert entry.load()("a/folder").source == "a/folder"


def test_the_recipe_in_the_text_is_valid() -> None:
    """It is a `RunConfig` as it stands."""
    (recipe,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert from_mapping(RunConfig, tomllib.loads(recipe)).flow.shift == 3.0
