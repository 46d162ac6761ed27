"""Discovery: the built-ins and the installed plugins come through one door, and a broken plugin breaks nothing else."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from d4k import create, hookimpl
from d4k.datasets import FolderDataset
from d4k.errors import PluginError, UnknownNameError
from d4k.plugins import discover, registry
from d4k.plugins import discovery as plugins
from d4k.training import MSELoss


def loss_plugin(name: str, target: str = "d4k.training:MSELoss", **attributes: Any) -> Any:
    """A plugin that registers one loss."""

    @hookimpl
    def register_losses(register: Any) -> None:
        register(name, target, summary="a loss")

    return SimpleNamespace(register_losses=register_losses, **attributes)


@hookimpl
def register_loses(register: Any) -> None:
    """A hook that does not exist."""


@hookimpl
def register_metrics(registre: Any) -> None:
    """A hook whose argument does not exist."""


def test_built_ins_are_registered_without_any_plugin(install: Callable[..., None]) -> None:
    """The plain loss and the plain dataset go through the same door as everything else."""
    install()
    assert create("loss", "mse") == MSELoss()
    assert isinstance(create("dataset", "folder", path="x"), FolderDataset)
    assert {(e.plugin, e.version) for entries in registry().entries.values() for e in entries} == {("d4k", "0.1.0")}


def test_plugin_registers_every_kind(fake_plugin: None) -> None:
    """Names carry the distribution, its version and the summary; a checkpoint also its backbone."""
    found = registry()
    assert found.get("backbone", "fake").pipelines == ("FakePipeline",)
    assert (found.get("metric", "brightness").plugin, found.get("metric", "brightness").version) == ("d4k-fake", "1.0")
    checkpoint = found.get("checkpoint", "fake-model")
    assert (checkpoint.backbone, checkpoint.target, checkpoint.summary) == ("fake", "", "fresh weights")
    assert found.failures == {}


def test_registry_is_discovered_once(install: Callable[..., None]) -> None:
    """Later calls return the same object."""
    install()
    assert registry() is registry()


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (ImportError("no module\n  named x"), "ImportError: no module named x"),
        (SyntaxError("bad"), "SyntaxError: bad"),
        (SimpleNamespace(register_loses=register_loses), "register_loses"),
        (SimpleNamespace(register_metrics=register_metrics), "registre"),
        (loss_plugin("late", D4K_API=2), "it is written for API 2, this d4k has API 1"),
        (loss_plugin("late", target="d4k.builtin.MSELoss"), "loss 'late' has the target 'd4k.builtin.MSELoss'"),
    ],
    ids=["import", "syntax", "misspelt hook", "misspelt argument", "other API", "malformed target"],
)
def test_broken_plugin_is_recorded_not_raised(install: Callable[..., None], plugin: Any, reason: str) -> None:
    """Its reason is kept on one line, the others load, and using its name raises the reason."""
    install(late=plugin, good=loss_plugin("good"))
    assert reason in registry().failures["d4k-late"]
    assert "\n" not in registry().failures["d4k-late"]
    assert create("loss", "good") == MSELoss()
    with pytest.raises(PluginError, match="loss 'late' is not available: plugin d4k-late failed to load"):
        create("loss", "late")


class Exits:
    """An entry point whose module calls `sys.exit`."""

    name, dist = "quits", SimpleNamespace(name="d4k-quits", version="1")

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def load(self) -> Any:
        raise self.error(3)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit])
def test_plugin_that_exits_while_it_is_imported_is_recorded(error: type[BaseException]) -> None:
    """The command goes on, with its own exit code."""
    found = discover([Exits(error)])  # type: ignore[list-item]
    assert found.failures == {"d4k-quits": f"{error.__name__}: 3"}
    assert found.names("loss") == ["mse"]


def test_interruption_by_the_user_is_no_failure_of_a_plugin() -> None:
    """Ctrl-C ends the command."""
    with pytest.raises(KeyboardInterrupt):
        discover([Exits(KeyboardInterrupt)])  # type: ignore[list-item]


def test_hook_that_exits_is_recorded(install: Callable[..., None]) -> None:
    """As one that fails."""

    @hookimpl
    def leave(register: Any) -> None:
        raise SystemExit("bye")

    install(quits=SimpleNamespace(register_losses=leave))
    assert registry().failures == {"d4k-quits": "SystemExit: bye"}


def test_module_that_exits_is_a_plugin_error_on_use(
    install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported on first use only."""
    (tmp_path / "d4k_that_exits.py").write_text("import sys; sys.exit(5)")
    monkeypatch.syspath_prepend(tmp_path)
    install(late=loss_plugin("late", target="d4k_that_exits:Loss"))
    with pytest.raises(PluginError, match=r"cannot be loaded from d4k_that_exits:Loss: SystemExit: 5"):
        create("loss", "late")


@pytest.mark.parametrize("given", [{"name": 5}, {"target": None}, {"summary": b"x"}])
def test_words_that_are_no_strings_are_recorded(install: Callable[..., None], given: dict[str, Any]) -> None:
    """Sorting names, or printing them, would fail for everybody."""

    @hookimpl
    def register_losses(register: Any) -> None:
        words = {"name": "x", "target": "a:b", "summary": "a loss", **given}
        register(words["name"], words["target"], summary=words["summary"])

    install(odd=SimpleNamespace(register_losses=register_losses))
    assert "it must be a string" in registry().failures["d4k-odd"]
    assert registry().names("loss") == ["mse"]


def test_plugin_that_fails_half_way_registers_nothing(install: Callable[..., None]) -> None:
    """What it registered before the failure does not remain."""

    @hookimpl
    def fail(register: Any) -> None:
        raise RuntimeError("half way")

    install(half=SimpleNamespace(register_losses=loss_plugin("half").register_losses, register_metrics=fail))
    assert registry().names("loss") == ["mse"]
    assert registry().failures == {"d4k-half": "RuntimeError: half way"}


def test_plugin_of_this_api_version_loads(install: Callable[..., None]) -> None:
    """Saying the version that this d4k has is fine."""
    install(new=loss_plugin("new", D4K_API=1))
    assert create("loss", "new") == MSELoss()


def test_two_plugins_claiming_one_name_fail_on_use(install: Callable[..., None]) -> None:
    """Both distributions are named; built-ins have no privilege."""
    install(a=loss_plugin("same"), b=loss_plugin("same"), c=loss_plugin("mse"))
    with pytest.raises(PluginError, match=r"d4k-a 1\.0 and d4k-b 1\.0"):
        create("loss", "same")
    with pytest.raises(PluginError, match=r"d4k 0\.1\.0 and d4k-c 1\.0"):
        create("loss", "mse")


def test_environment_restricts_discovery(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """`D4K_PLUGINS=a,b` loads those only; empty means built-ins only."""
    install(a=loss_plugin("one"), b=loss_plugin("two"))
    for value, expected in [("b", ["mse", "two"]), (" a , b ", ["mse", "one", "two"]), ("", ["mse"])]:
        monkeypatch.setenv("D4K_PLUGINS", value)
        registry.cache_clear()
        assert registry().names("loss") == expected
        assert registry().failures == {}


def test_environment_that_names_what_is_not_installed_is_reported(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that has no effect is not ignored in silence."""
    install(a=loss_plugin("one"))
    monkeypatch.setenv("D4K_PLUGINS", "a,wavelet")
    registry.cache_clear()
    assert registry().failures == {"wavelet": "named in D4K_PLUGINS, but not installed"}
    with pytest.raises(PluginError, match="not installed"):
        create("loss", "wavelet")


def test_unknown_names_and_kinds() -> None:
    """`create` says what is known."""
    with pytest.raises(UnknownNameError, match="unknown loss 'zzz'"):
        create("loss", "zzz")
    wrong: Any = "optimiser"
    with pytest.raises(UnknownNameError, match="unknown kind 'optimiser'"):
        create(wrong, "mse")


def test_entry_point_without_a_distribution_goes_by_its_own_name() -> None:
    """A module that was never installed can still be discovered."""
    found = discover([EntryPoint("loose", f"{__name__}", "d4k")])
    assert "loose" in found.failures


def test_version_of_what_is_not_installed_is_a_question_mark() -> None:
    """Running from a checkout that was not installed is no error."""
    assert plugins._version("d4k-of-nobody") == "?"
