"""`d4k check` runs the contracts of what a plugin registers: a line each, and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define
from click.testing import CliRunner, Result

from d4k.cli import main
from d4k.plugins import hookimpl


@define
class Silent:
    """A loss that is nothing, whatever is predicted."""

    def __call__(self, velocity: Any, step: Any) -> Any:
        return velocity.float().flatten(1).sum(1) * 0


class Broken:
    """A plugin whose loss breaks its contract, and whose metric cannot be imported."""

    @staticmethod
    @hookimpl
    def register_losses(register: Any) -> None:
        register("silent", f"{__name__}:Silent", summary="nothing")

    @staticmethod
    @hookimpl
    def register_metrics(register: Any) -> None:
        register("absent", "nowhere_to_be_found:Metric", summary="not there")


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def test_plugin_that_keeps_its_contracts(fake_plugin: None) -> None:
    """A backbone on its registered checkpoint, a metric; with or without `d4k-` in front."""
    for name in ("fake", "d4k-fake"):
        result = check(name)
        assert (result.exit_code, result.output) == (
            0,
            "ok       backbone fake on fake-model\nok       metric brightness\n",
        )


def test_everything_is_checked_without_a_name(fake_plugin: None) -> None:
    """The built-ins too; what needs options says which."""
    lines = check().output.splitlines()
    assert "ok       loss mse" in lines
    assert "skipped  dataset folder: it needs options: path; call check_dataset in a test" in lines


def test_broken_contract_is_a_sentence_and_exit_code_1(install: Callable[..., None]) -> None:
    """The other parts are checked all the same."""
    install(bad=Broken)
    result = check("bad")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "failed   loss silent: a loss is above zero where the prediction is wrong",
        "failed   metric absent: metric 'absent' of d4k-bad cannot be loaded from nowhere_to_be_found:Metric: "
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        "2 contracts do not hold",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fakey",), "unknown plugin 'fakey'; did you mean 'd4k-fake'? Known: d4k, d4k-fake."),
        (("broken",), "plugin d4k-broken did not load: ImportError: no module"),
    ],
)
def test_plugin_that_is_not_there_is_exit_code_2(
    install: Callable[..., None], fake_plugin: None, arguments: tuple[str, ...], message: str
) -> None:
    """One line, with a suggestion or the reason."""
    from d4k.plugins import discovery

    points: Any = discovery.entry_points(group="d4k")  # type: ignore[attr-defined]
    install(fake=points[0].plugin, broken=ImportError("no module"))
    result = check(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_model_that_is_not_there_is_skipped_with_the_reason(fake_plugin: None) -> None:
    """The plugin is not to blame."""
    result = check("fake", "--model", "fake-modle")
    assert result.exit_code == 0
    assert (
        "skipped  backbone fake on fake-modle: unknown model 'fake-modle'; did you mean 'fake-model'?" in result.output
    )
