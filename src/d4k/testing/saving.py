"""What of the contract concerns saving: what was trained is what is loaded again."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from attrs import evolve

from d4k.protocols import Backbone, Placement
from d4k.testing.attempt import attempt, like
from d4k.testing.trial import PROMPTS, Trial

__all__ = ["check_saving"]

LARGEST = 10**8
"""Parameters up to which a model is saved and loaded again by the check."""


def check_saving(trial: Trial) -> None:
    """Change a weight, save, load: the velocity is that of the changed weight. Larger models are not written."""
    backbone = trial.backbone
    if sum(p.numel() for part in backbone.components.values() for p in part.parameters()) > LARGEST:
        return
    text = trial.text(PROMPTS)
    weights = list(backbone.trainable.parameters())
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                weight.mul_(1.05)
        expected = trial.velocity(text)
        with TemporaryDirectory() as folder:
            again = _saved_and_loaded(backbone, Path(folder) / "model", trial.latent)
            got = evolve(trial, backbone=again).velocity(text)
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
    assert like(got, expected), "save writes the weights of trainable as they are now; loaded again, they are others"


def _saved_and_loaded(backbone: Backbone, folder: Path, latent: torch.Tensor) -> Backbone:
    folder.mkdir()
    attempt("save into an empty folder", lambda: backbone.save(folder))
    assert (folder / "model_index.json").is_file(), "save writes the diffusers layout, with a model_index.json"
    made: Any = backbone
    again: Backbone = evolve(made, source=str(folder))
    attempt("load of what save wrote", lambda: again.load(Placement(latent.device, latent.dtype)))
    return again
