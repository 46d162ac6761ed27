"""What imports what: a light start, one-way layers, and plugins that use public names only."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import d4k

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "numpy", "PIL", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "tqdm"}
LIGHT = ["errors", "files", "seeds", "protocols", "config", "plugins", "cli"]
PUBLIC_MODULES = ["backbones", "flow", "images", "autoencoder", "testing"]  # fmt: skip
PLUGINS = sorted((ROOT / "plugins").iterdir())
TUTORIAL = ROOT / "docs" / "tutorial" / "d4k-sana"
PLUGIN_FILES = sorted(path for folder in (*PLUGINS, TUTORIAL) for path in (folder / "src").rglob("*.py"))


def loaded_by(code: str) -> set[str]:
    """Top-level modules in `sys.modules` after running `code` in a new interpreter."""
    code += "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import d4k; dir(d4k); d4k.__version__",
        "from d4k import create, hookimpl, Backbone, FlowStep, Sample, Score, D4KError",
        *(f"import d4k.{name}" for name in LIGHT),
        "from d4k.plugins import registry; assert registry().entries",
        "from d4k.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from d4k.cli import main\ntry: main(['generate', '--help'])\nexcept SystemExit: pass",
        "from d4k.cli import main\ntry: main(['plugins'])\nexcept SystemExit: pass",
    ],
)
def test_light_parts_load_nothing_heavy(code: str) -> None:
    """No torch, no NumPy, no Pillow: the first word of the program comes at once, with all plugins installed."""
    assert loaded_by(code) & HEAVY == set()


def test_this_test_would_see_a_heavy_import() -> None:
    """The check above has the power to fail."""
    assert {"numpy", "PIL"} <= loaded_by("import PIL.Image, numpy") & HEAVY


def test_layers_hold() -> None:
    """import-linter finds no upward import, no cycle and no model class in the core."""
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"}
    )
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def test_layers_name_every_module() -> None:
    """A new module of the core cannot be forgotten in the contract."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    named = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    folder = ROOT / "src" / "d4k"
    paths = [p for p in folder.iterdir() if not p.name.startswith(("__init__", "__pycache__", "py.typed"))]
    modules = {f"d4k.{path.stem}" for path in paths}
    assert modules == named


def imports_of_d4k(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of everything a file takes from the core; an empty name where it takes the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "d4k":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "d4k")


def is_public(module: str, name: str) -> bool:
    """Whether a plugin may import this."""
    if module == "d4k":
        return name in d4k.__all__ or name in PUBLIC_MODULES or not name
    public = import_module(module)
    return module.removeprefix("d4k.") in PUBLIC_MODULES and (not name or name in public.__all__)


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_plugins_import_public_names_only(path: Path) -> None:
    """Ours do what third parties can do, and no more."""
    assert [pair for pair in imports_of_d4k(path) if not is_public(*pair)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from d4k.files import write_text",
        "from d4k.training import _step",
        "import d4k.cli",
        "from d4k import plugins",
    ],
)
def test_private_imports_would_be_seen(tmp_path: Path, line: str) -> None:
    """The check above has the power to fail, for imports inside functions, too."""
    (tmp_path / "x.py").write_text(f"def f():\n    {line}\n")
    assert [is_public(*pair) for pair in imports_of_d4k(tmp_path / "x.py")] == [False]


@pytest.mark.parametrize(
    "path", [path for path in PLUGIN_FILES if path.name == "__init__.py"], ids=lambda path: path.parts[-2]
)
def test_top_module_of_a_plugin_is_light(path: Path) -> None:
    """At most 40 lines, and nothing heavy on import."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    findable = f"import sys; sys.path.insert(0, {str(path.parents[1])!r})"
    assert loaded_by(f"{findable}; import {path.parts[-2]}") & HEAVY == set()


@pytest.mark.parametrize("folder", [*PLUGINS, TUTORIAL], ids=lambda folder: folder.name)
def test_plugin_is_a_distribution_of_the_agreed_form(folder: Path) -> None:
    """Distribution `d4k-x`, module `d4k_x`, entry point `x`, an open range of the core, the same licence."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    short = folder.name.removeprefix("d4k-")
    assert project["name"] == folder.name
    assert project["entry-points"]["d4k"] == {short: f"d4k_{short}"}
    assert "d4k>=0.1,<0.2" in project["dependencies"]
    assert project["license"] == "Apache-2.0"
    assert (folder / "README.md").is_file()


def test_extra_all_names_every_plugin() -> None:
    """`pip install d4k[all]` brings what the repository holds."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["all"]
    assert {requirement.partition(">")[0] for requirement in extra} == {folder.name for folder in PLUGINS}
