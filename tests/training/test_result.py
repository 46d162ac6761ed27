"""A run records what sampling should use again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d4k.datasets import FolderDataset
from d4k.models import CARD, Model, ModelRef, Training
from d4k.training import MSELoss, train, trained_with

Config = Callable[..., Any]


@pytest.fixture
def backbone(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose trained models must be sampled with an option of theirs, whatever its name."""
    monkeypatch.setattr(type(backbone), "trained_options", {"shape": "round"})
    return backbone


def test_size_shift_and_options_are_recorded(backbone: Any, run_config: Config) -> None:
    """The core asks the backbone for its options, and takes the size from the run, or else from the backbone."""
    config = run_config(data={"width": 8}, flow={"shift": 3.0})
    assert trained_with(backbone, config) == Training(8, 16, None, 3.0, {"shape": "round"})
    assert trained_with(backbone, run_config()) == Training(16, 16, None, None, {"shape": "round"})


def test_guidance_is_recorded_where_the_denoiser_takes_it(
    backbone: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the run, or else the backbone's own; a denoiser without that input has none to record."""
    assert trained_with(backbone, run_config(flow={"guidance": 2.0})).guidance is None
    defaults = type("Defaults", (), {"size": 16, "embedded_guidance": 3.5})
    monkeypatch.setattr(type(backbone), "defaults", defaults)
    assert trained_with(backbone, run_config()).guidance == 3.5
    assert trained_with(backbone, run_config(flow={"guidance": 2.0})).guidance == 2.0


def test_the_card_keeps_what_is_known(backbone: Any, photos: Path, run_config: Config) -> None:
    """Without what is not; beside the model, and beside an adapter."""
    for name, sections in [("model", {}), ("adapter", {"adapter": {"targets": ["out"]}})]:
        config = run_config(name, data={"width": 8}, training={"steps": 1}, **sections)
        run = train(backbone, FolderDataset(photos), MSELoss(), config, model=Model(ModelRef("fake-model"), "fake", ""))
        card = json.loads((run.output_dir / name / CARD).read_text())
        assert card["training"] == {"width": 8, "height": 16, "options": {"shape": "round"}}
