"""What a picture in stages is sampled with: for each stage what is said, else the presets, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from d4k import ConfigError, Preset, UnknownNameError
from d4k.models import Model, ModelRef, Training
from d4k.plugins import registry
from d4k.sampling import SamplingSettings, choose_settings, suggested_stages

pytestmark = pytest.mark.usefixtures("fake_plugin")


def settle(backbone: Any, training: Training | None = None, *, image: bool = False, **given: Any) -> SamplingSettings:
    return choose_settings(backbone, model(training), given, image=image)


def model(training: Training | None = None, registered: Mapping[str, Any] | None = None) -> Model:
    return Model(ModelRef("fake-model"), "fake", "", training=training or Training(), registered=registered or {})


def of(settings: SamplingSettings, name: str) -> list[Any]:
    return [getattr(stage, name) for stage in settings.stages]


def test_stages_take_lists_or_one_value_for_all(backbone: Any) -> None:
    found = settle(
        backbone, stages="16,32,64", steps=[8, 7, 6], guidance=3.0, shift=[1.0, 2.0, 3.0], restart=[0.8, 0.6]
    )
    assert of(found, "width") == [16, 32, 64]
    assert of(found, "steps") == [8, 7, 6]
    assert of(found, "guidance") == [3.0] * 3
    assert of(found, "shift") == [1.0, 2.0, 3.0]
    assert of(found, "restart") == [1.0, 0.8, 0.6]
    assert of(settle(backbone, stages="16,32", restart=0.5), "restart") == [1.0, 0.5]
    assert of(settle(backbone, stages="16,32", restart=[0.9, 0.5], image=True), "restart") == [0.9, 0.5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": [3]}, "steps has 1 values for 2 stages; give one for all, or one for each"),
        ({"restart": [0.5, 0.6]}, "restart has 2 values for 1 stages that begin with a picture"),
        ({"restart": 1.5}, "restart must be a number above 0 and at most 1, got 1.5"),
        ({"restart": 1e-6}, "restart 1e-06 leaves no step to take"),
        ({"alignment": 2}, "alignment must be"),
        ({"cutoff": -1}, "cutoff must be"),
        ({"upscaler": "lanczo"}, "unknown upscaler 'lanczo'; did you mean 'lanczos'"),
        ({"upscaler_options": {"lobes": 2}}, "upscaler 'lanczos' has no option 'lobes'"),
        ({"stages": "16,34"}, "width 34 is not a multiple of 4; nearest: 32 or 36"),
        ({"stages": "18x16,32x32"}, "width 18 is not a multiple of 4; nearest: 16 or 20"),
        ({"stages": "16,68"}, "fake covers at most 64 pixels"),
        ({"width": 64}, "the last of the stages is 32x16, but 64x32 is asked for|the last of the stages"),
        ({"strength": 0.5}, "strength is of a picture to begin with, and none is given"),
        ({"stage": 16}, "unknown setting 'stage'; did you mean 'stages'"),
        ({"earlier": ()}, "unknown setting 'earlier'"),
    ],
)
def test_what_cannot_work_is_refused(backbone: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settle(backbone, **{"stages": "16,32", **given})


def test_an_unknown_upscaler_is_refused_without_stages_too(backbone: Any) -> None:
    with pytest.raises(UnknownNameError):
        settle(backbone, upscaler="nearest")


@pytest.mark.parametrize("value", [0, 1.1, -1, True, "0.5", float("nan")])
def test_strength_is_a_share(backbone: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match="strength must be a number above 0 and at most 1, got"):
        settle(backbone, image=True, strength=value)


def test_strength_is_the_share_of_the_steps_and_becomes_a_restart(backbone: Any) -> None:
    """As diffusers counts: the first `steps - strength * steps`, rounded down, are left out."""
    levels = backbone.scheduler(8, 16, 16).sigmas.tolist()
    with pytest.warns(UserWarning, match="cutoff counts only with an alignment above 0"):
        settle(backbone, stages="16,32", cutoff=0.5)
    settle(backbone, stages="16,32", cutoff=0.5, alignment=0.5)
    with pytest.warns(UserWarning, match="restart 1 begins 16x16 with noise alone"):
        assert settle(backbone, image=True, steps=8, strength=0.99).restart == 1
    for strength, place in ((0.875, 1), (0.5, 4), (0.45, 4), (0.01, 7)):
        assert settle(backbone, image=True, steps=8, strength=strength).restart == levels[place]
    both = settle(backbone, image=True, steps=8, strength=0.5, stages="16,32")
    assert of(both, "restart") == [levels[4], 0.7]
    with pytest.raises(ConfigError, match="give one of them"):
        settle(backbone, image=True, strength=0.5, restart=0.5)


def test_presets_say_the_restart_of_their_size(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    presets = (Preset(16, 3, 2.0), Preset(64, 5, 1.0, shift=4.0, restart=0.4))
    entry = registry().get("backbone", "fake")
    monkeypatch.setattr(type(registry()), "get", lambda *_: type("E", (), {"presets": presets, "load": entry.load})())
    found = settle(backbone, stages="16,24,64")
    assert of(found, "restart") == [1.0, 0.7, 0.4]
    assert of(found, "shift") == ["scheduler", "scheduler", 4.0]
    assert of(settle(backbone, stages="16,64", restart=0.9), "restart") == [1.0, 0.9]


def test_what_is_registered_of_a_model_counts_before_presets(backbone: Any) -> None:
    said = model(registered={"restart": 0.55, "alignment": 0.25})
    found = choose_settings(backbone, said, {"stages": "16,32"})
    assert (found.restart, found.alignment) == (0.55, 0.25)
    plain = choose_settings(backbone, said, {})
    assert plain == SamplingSettings(16, 16, 3, 2.0)  # and is not said of a picture that has no use for it


def test_stages_that_are_named_say_the_size(backbone: Any) -> None:
    """Whatever the model was trained at, which is where "auto" begins."""
    trained = Training(width=32, height=32)
    assert of(settle(backbone, trained, stages="32,64"), "width") == [32, 64]
    assert of(settle(backbone, trained, stages="auto", width=64, height=64), "width") == [32, 64]
    assert of(settle(backbone, trained, stages="auto"), "width") == [32]
    assert of(settle(backbone, stages="auto", width=64, height=64), "width") == [16, 32, 64]


def test_only_the_size_that_begins_with_noise_is_a_deviation(backbone: Any) -> None:
    trained = Training(width=16, height=16, guidance=2.0)
    settle(backbone, trained, stages="16,64")  # a warning would be an error
    settle(backbone, trained, width=64, height=64, image=True)
    with pytest.warns(UserWarning, match="size 32x32, trained 16x16"):
        settle(backbone, trained, stages="32,64")
    with pytest.warns(UserWarning, match=r"otherwise than it was trained: guidance 5.0, trained 2.0. Leave"):
        settle(backbone, trained, stages="16,64", guidance=[2.0, 5.0])


def test_what_counts_for_nothing_is_said(backbone: Any) -> None:
    with pytest.warns(UserWarning, match="restart and alignment count only where a picture is begun with"):
        plain = settle(backbone, restart=0.5, alignment=0.5)
    assert plain == settle(backbone)
    with pytest.warns(UserWarning, match="cutoff counts only where"):
        settle(backbone, cutoff=0.5)
    with pytest.warns(UserWarning, match="restart 1 begins 32x32 with noise alone"):
        settle(backbone, stages="16,32", restart=1.0)
    settle(backbone, stages="auto", alignment=0.5)  # a folder may hold sizes that need no stages
    settle(backbone, stages="16,32", restart=1.0, alignment=0.5)


def test_a_size_beyond_the_models_own_suggests_stages(backbone: Any) -> None:
    """In one line, and to nobody else."""
    words = suggested_stages(backbone, model(), settle(backbone, width=64, height=32))
    assert words == (
        "64x32 is beyond what 'fake-model' was trained at (16x16): add stages='auto' (--stages auto), which samples "
        "24x12 first"
    )
    trained = Training(width=64, height=32)
    quiet = [
        (None, settle(backbone)),
        (None, settle(backbone, width=16, height=20)),
        (None, settle(backbone, width=8, height=8)),
        (None, settle(backbone, stages="auto", width=64, height=32)),
        (None, settle(backbone, width=64, height=32, image=True)),
        (trained, settle(backbone, trained)),
    ]
    assert [suggested_stages(backbone, model(training), found) for training, found in quiet] == [""] * len(quiet)
    assert not suggested_stages(backbone, model(), settle(backbone, stages="64x32"), "64x32")


def test_nothing_is_suggested_while_training(backbone: Any) -> None:
    """Settling alone says nothing: only who asks for a picture is told."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settle(backbone, width=64, height=64)
