"""Names and what they stand for."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from attrs import evolve, field, frozen

from d4k import Preset
from d4k.errors import ConfigError, PluginError, UnknownNameError
from d4k.plugins import Entry, Registry, build


@frozen
class Lens:
    """A component with one option of each sort."""

    focus: int = field(default=1)
    coating: str = field(default="none", kw_only=True)
    hidden: int = field(default=0, init=False)

    @focus.validator
    def _check(self, attribute: Any, value: int) -> None:
        if value < 0:
            raise ValueError(f"focus is {value}; it must be at least 0")
        if value > 99:
            raise ConfigError(f"focus is {value}; it must be at most 99")


@frozen
class Mount:
    """A component with an option that must be given."""

    size: int


def plain(width: int = 1) -> int:
    """A target that is not an attrs class."""
    return width * 2


def entry(name: str = "lens", target: str = f"{__name__}:Lens", plugin: str = "d4k-one",
          kind: Literal["loss", "metric"] = "loss") -> Entry:  # fmt: skip
    return Entry(kind, name, target, "one line", plugin, "1.0")


def test_target_is_imported_on_loading() -> None:
    """An entry is two strings until it is used."""
    assert entry().load() is Lens


@pytest.mark.parametrize(
    ("target", "reason"), [("nowhere_at_all:X", "ModuleNotFoundError"), (f"{__name__}:Nothing", "AttributeError")]
)
def test_target_that_is_not_there_names_its_plugin(target: str, reason: str) -> None:
    """A broken target is the plugin's mistake, and says so."""
    with pytest.raises(PluginError, match=f"loss 'lens' of d4k-one cannot be loaded from {target}: {reason}") as caught:
        entry(target=target).load()
    assert caught.value.plugins == ("d4k-one",)


def test_names_are_sorted_and_of_one_kind() -> None:
    """A loss and a metric of one name do not clash."""
    registry = Registry()
    for item in (entry("b"), entry("a"), entry("a", kind="metric")):
        registry.add(item)
    assert registry.names("loss") == ["a", "b"]
    assert registry.get("metric", "a").kind == "metric"
    assert registry.clashes() == []


def test_two_plugins_claiming_one_name_are_both_named_on_use() -> None:
    """Neither wins in silence; other names go on working."""
    registry = Registry()
    for item in (entry(), entry(plugin="d4k-two"), entry("other")):
        registry.add(item)
    with pytest.raises(
        PluginError, match=r"loss 'lens' is claimed by d4k-one 1\.0 and d4k-two 1\.0; uninstall"
    ) as caught:
        registry.get("loss", "lens")
    assert caught.value.plugins == ("d4k-one", "d4k-two")
    assert registry.clashes() == [str(caught.value)]
    assert registry.get("loss", "other").name == "other"


def test_unknown_kind_and_name_list_what_there_is() -> None:
    """Both messages suggest and enumerate."""
    registry = Registry()
    registry.add(entry())
    wrong: Any = "los"
    with pytest.raises(
        UnknownNameError, match=r"unknown kind 'los'; did you mean 'loss'\? Known: backbone, captioner, checkpoint"
    ):
        registry.get(wrong, "lens")
    with pytest.raises(
        UnknownNameError, match=r"unknown loss 'lense'; did you mean 'lens'\? Known: lens\. Try: d4k plugins"
    ):
        registry.get("loss", "lense")


def test_using_a_name_of_a_plugin_that_failed_raises_its_reason() -> None:
    """The user learns why the name is missing, not only that it is."""
    registry = Registry(failures={"d4k-wavelet": "ImportError: no pywt"})
    with pytest.raises(
        PluginError, match="loss 'wavelet' is not available: plugin d4k-wavelet failed to load: ImportError"
    ):
        registry.get("loss", "wavelet")
    with pytest.raises(UnknownNameError):
        registry.get("loss", "mse")


def test_preset_is_the_nearest_in_octaves_and_of_the_stride_asked_for() -> None:
    """By the geometric mean of the sides; without presets there is none."""
    names = Registry()
    plain, fine, half = Preset(1024, 28, 7.0), Preset(4096, 50, 5.0, downscale=8), Preset(4096, 20, 5.0, downscale=16)
    names.add(evolve(entry(), kind="backbone", presets=(plain, fine, half)))
    names.add(evolve(entry(), kind="backbone", name="bare"))
    assert names.preset("lens", 1900, 1900) == plain
    assert names.preset("lens", 4096, 2304, 16) == half
    assert names.preset("lens", 8192, 4096, 8) == fine
    assert names.preset("bare", 64, 64) is None


def test_fields_are_options() -> None:
    """Options become keyword arguments."""
    assert build(entry(), {"focus": 3, "coating": "thin"}) == Lens(3, coating="thin")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"focsu": 1}, r"loss 'lens' has no option 'focsu'; did you mean 'focus'\? Options: focus, coating\.$"),
        ({"hidden": 1}, r"loss 'lens' has no option 'hidden'\. Options: focus, coating\.$"),
        ({"focus": -1}, r"^loss 'lens': focus is -1; it must be at least 0$"),
        ({"focus": 100}, r"^loss 'lens': focus is 100; it must be at most 99$"),
        ({"focus": "x"}, r"^loss 'lens': option 'focus' must be int, got 'x'"),
    ],
)
def test_wrong_options_are_config_errors_that_name_the_component(options: dict[str, Any], message: str) -> None:
    """Unknown options come with a suggestion; what a validator says is passed on."""
    with pytest.raises(ConfigError, match=message):
        build(entry(), options)


def test_missing_option_is_named() -> None:
    """The Python signature is not shown, the option is."""
    with pytest.raises(ConfigError, match="^loss 'lens' needs the option 'size', which is not given: name it as size="):
        build(entry(target=f"{__name__}:Mount"), {})


def test_target_without_fields_is_called_with_the_options() -> None:
    """Anything callable may be registered; Python checks its options."""
    assert build(entry(target=f"{__name__}:plain"), {"width": 4}) == 8
    with pytest.raises(ConfigError, match="unexpected keyword argument 'depth'"):
        build(entry(target=f"{__name__}:plain"), {"depth": 4})


def test_component_without_options_says_so() -> None:
    """The list of options of the plain loss reads 'none'."""
    with pytest.raises(ConfigError, match=r"has no option 'x'\. Options: none\.$"):
        build(entry(target="d4k.training:MSELoss"), {"x": 1})
