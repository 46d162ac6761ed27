"""The documentation is complete and agrees with the code. Its code blocks run by themselves: see conftest.py."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
import shlex
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import attrs
import click
import pytest
import tomli_w
from click.testing import CliRunner

import d4k
from d4k.cli import main
from d4k.cli.adapter import adapter
from d4k.config import RunConfig, from_mapping, read_toml, settings_class
from d4k.plugins import discover, hookspecs
from d4k.plugins.discovery import HOOKS
from d4k.testing import check_loss

ROOT = Path(__file__).parents[1]
PUBLIC_MODULES = ["autoencoder", "backbones", "flow", "images", "testing"]
PLUGINS = sorted(folder.name for folder in (ROOT / "plugins").iterdir() if (folder / "pyproject.toml").is_file())
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorial").rglob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(text) if kind == language]


def arguments(function: Any) -> str:
    """The argument list as one writes it, without annotations and `self`."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(inspect.Signature(bare))


@pytest.mark.parametrize("hook", [*HOOKS, "register_checkpoints"])
def test_every_hook_is_documented_with_its_arguments(hook: str) -> None:
    """The page on plugins names each hook with its exact argument list."""
    assert f"`{hook}{arguments(getattr(hookspecs, hook))}`" in page("docs/plugins.md")


def test_the_list_of_hooks_is_complete() -> None:
    """What the test above goes through is what the hook module specifies."""
    specified = {name for name, value in vars(hookspecs).items() if hasattr(value, "d4k_spec")}
    assert specified == {*HOOKS, "register_checkpoints"}


@pytest.mark.parametrize("callback", [hookspecs.Register, hookspecs.RegisterCheckpoint])
def test_every_callback_is_documented_with_its_arguments(callback: type) -> None:
    """The page on plugins has the exact argument list of what a hook is handed."""
    assert f"    register{arguments(callback.__call__)}\n" in page("docs/plugins.md")


@pytest.mark.parametrize("name", d4k.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    """Each name of `d4k.__all__` has an entry of its own."""
    assert re.search(
        rf"^\.\. (autoclass|autofunction|autodata|py:decorator):: d4k\.{name}$", page("docs/api.md"), re.MULTILINE
    )


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_public_module_is_in_the_reference(name: str) -> None:
    """Each public module is documented by its docstrings."""
    assert f".. automodule:: d4k.{name}\n   :members:\n" in page("docs/api.md")


def public_objects() -> Iterator[tuple[str, Any]]:
    yield from ((f"d4k.{name}", getattr(d4k, name)) for name in d4k.__all__)
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(f"d4k.{module_name}")
        yield module.__name__, module
        yield from ((f"{module.__name__}.{name}", getattr(module, name)) for name in module.__all__)


def described_constants(module_name: str) -> set[str]:
    """The assignments of a module, or of those in a package, that are followed by a docstring."""
    file = Path(inspect.getfile(importlib.import_module(module_name)))
    names = set()
    for part in file.parent.glob("*.py") if file.name == "__init__.py" else [file]:
        for assignment, after in pairwise(ast.parse(part.read_text(encoding="utf-8")).body):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                targets = getattr(assignment, "targets", [getattr(assignment, "target", None)])
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize(("name", "value"), [pytest.param(*found, id=found[0]) for found in public_objects()])
def test_every_public_object_has_a_docstring(name: str, value: Any) -> None:
    """Functions, classes, their public methods and properties, and constants say what they are."""
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value) or name == "d4k.hookimpl"):
        module_name, _, constant = name.rpartition(".")
        module_name = f"d4k.{d4k._HOME[constant]}" if module_name == "d4k" and constant in d4k._HOME else module_name
        assert constant in described_constants(module_name), f"{name} has no docstring below it"
        return
    assert value.__doc__, f"{name} has no docstring"
    if inspect.isclass(value):
        for member_name, member in vars(value).items():
            if not member_name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{member_name} has no docstring"


@pytest.mark.parametrize("name", [*main.commands, *(f"adapter {name}" for name in adapter.commands)])
def test_every_command_shows_an_example(name: str) -> None:
    """The help of each command has an example on lines of its own, which begins with the command itself."""
    shown_help = CliRunner().invoke(main, [*name.split(), "--help"]).output
    assert re.search(rf"^  Example:\n    d4k {name}\b", shown_help, re.MULTILINE)


def shell_lines() -> Iterator[Any]:
    for path in PAGES:
        for block in blocks(path.read_text(encoding="utf-8"), "bash"):
            for words in re.findall(r"^(?:[A-Z0-9_]+=\S+ )*d4k (.+)$", block, re.MULTILINE):
                yield pytest.param(shlex.split(words, comments=True), id=f"{named(path)}: {words}")


@pytest.mark.parametrize("words", list(shell_lines()))
def test_commands_in_the_documentation_parse(words: list[str]) -> None:
    """Every `d4k` line of the pages names a command and options that exist."""
    name, *rest = words
    command = main.commands[name]
    if isinstance(command, click.Group):
        name, *rest = rest if rest[0] in command.commands else ["fill", *rest]  # which d4k cache may leave out
        command = command.commands[name]
    command.make_context(name, rest)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=named)
def test_example_recipes_are_valid(path: Path) -> None:
    """Each recipe in `examples/` is a `RunConfig` as it stands."""
    assert from_mapping(RunConfig, read_toml(path)).model


@pytest.mark.parametrize(("name", "size", "batch"), [("sd3", 4096, 8), ("flux", 4096, 4)])
def test_the_recipes_at_4k_are_those_of_the_paper(name: str, size: int, batch: int) -> None:
    """Settings as in arXiv 2503.18352, on eight devices."""
    config = from_mapping(RunConfig, read_toml(ROOT / "examples" / f"train_{name}_4k.toml"))
    optimizer, training = config.optimizer, config.training
    assert (optimizer.lr, optimizer.weight_decay) == (1e-6, 1e-4)
    ways = {"sd3": ("adamw-8bit", "ddp"), "flux": ("adamw", "fsdp2")}
    assert (optimizer.name, config.parallel.strategy) == ways[name]
    assert (training.steps, training.batch_size, training.accumulation) == (20000, batch, 1)
    assert (training.clip, training.precision, training.gradient_checkpointing) == (1.0, "bf16", True)
    assert (config.data.width, config.data.height, config.data.crop, config.data.flip) == (size, size, "random", True)
    assert (config.schedule.name, config.training.save_every) == ("constant", 5000)
    assert config.flow.guidance == (3.5 if name == "flux" else None)


def test_the_quickstart_runs(tmp_path: Path) -> None:
    """`examples/quickstart.py` generates, trains, generates again and scores; here at 64 pixels."""
    quickstart = runpy.run_path(str(ROOT / "examples" / "quickstart.py"))["main"]
    quickstart(tmp_path, size=64, sampling_steps=2, training_steps=1)
    assert len(list(tmp_path.glob("*/000?-a-cup-of-coffee-*.png"))) == 4
    assert (tmp_path / "run" / "model" / "model_index.json").is_file()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link of a page points to a file of the repository."""
    targets = [link.partition("#")[0] for link in LINK.findall(path.read_text(encoding="utf-8"))]
    files = [target for target in targets if target and not target.startswith(("http://", "https://"))]
    missing = [target for target in files if not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_example_files_that_are_named_exist(path: Path) -> None:
    """Every path into `examples/` that a page names is there."""
    for target in re.findall(r"examples/[\w./-]+\w", path.read_text(encoding="utf-8")):
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("name", PLUGINS)
def test_the_readme_knows_every_plugin(name: str) -> None:
    """Each plugin is in the table, in the command that installs all, and in the extra `all`."""
    readme = page("README.md")
    assert f"| [{name}](plugins/{name}/README.md) |" in readme
    assert f" ./plugins/{name}" in next(line for line in readme.splitlines() if line.startswith("pip install . "))
    assert f'"{name}>=' in page("pyproject.toml")


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_sessions_that_are_named_exist(path: Path) -> None:
    """Every `nox -s NAME` of a page is a session of the noxfile."""
    sessions = set(re.findall(r"^@nox\.session.*\ndef (\w+)", page("noxfile.py"), re.MULTILINE))
    assert set(re.findall(r"nox -s (\w+)", path.read_text(encoding="utf-8"))) <= sessions


def descriptions(cls: type) -> dict[str, str]:
    """The Args section of a class's docstring, by name."""
    found = re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", inspect.getdoc(cls) or "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def setting_rows(cls: type, prefix: str = "", given: Any = None) -> Iterator[str]:
    hints, texts = get_type_hints(cls), descriptions(cls)
    for field in attrs.fields(cls):
        default = getattr(given, field.name) if given is not None else field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        if section := settings_class(hints[field.name]):
            below = None if default is attrs.NOTHING else default
            yield from setting_rows(section, f"{prefix}{field.name}.", below)
        else:
            yield f"| `{prefix}{field.name}` | {shown(default)} | {texts[field.name]} |"


def shown(value: object) -> str:
    if value is attrs.NOTHING:
        return "required"
    if value is None:
        return "–"
    words = " ".join(tomli_w.dumps({"v": value}).removeprefix("v = ").split())
    return f"`{words}`" if value != {} else "`{}`"


def test_every_setting_is_documented() -> None:
    """The table of settings is what the classes in `d4k.config` say: key, default, meaning."""
    _, found, _ = re.split(r"<!-- (?:end of )?settings -->\n", page("docs/training.md"))
    assert found.splitlines() == ["| key | default | meaning |", "| --- | --- | --- |", *setting_rows(RunConfig)]


def test_the_plugin_in_the_readme_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss in the README registers under its name and keeps the contract."""
    module = types.ModuleType("d4k_l1")
    exec(next(block for block in blocks(page("README.md"), "python") if "hookimpl" in block), vars(module))
    monkeypatch.setitem(sys.modules, "d4k_l1", module)
    registry = discover([EntryPoint("l1", "d4k_l1", "d4k")])
    assert not registry.failures
    check_loss(registry.get("loss", "l1").load()())
