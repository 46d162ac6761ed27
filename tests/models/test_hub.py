"""What is said when the Hub does not give what was asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import DiffusionPipeline
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from d4k import CheckpointError
from d4k.models import hub

ANSWER: Any = SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            GatedRepoError("x", response=ANSWER),
            r"'o/n' asks for its licence to be accepted: do so at huggingface\.co/o/n",
        ),
        (RepositoryNotFoundError("x", response=ANSWER), "the Hub has no model 'o/n' that you may read; check the name"),
        (RevisionNotFoundError("x", response=ANSWER), "'o/n' has no revision 'v2'; it is a branch, a tag or a commit"),
        (
            LocalEntryNotFoundError("x"),
            "cannot find the weights of 'o/n', neither on the Hub nor in the cache. Offline",
        ),
        (
            OfflineModeIsEnabled("x"),
            "cannot find the weights of 'o/n' in the cache, and HF_HUB_OFFLINE is set. Offline",
        ),
        (
            ConnectionError("cut\noff"),
            "cannot get the weights of 'o/n' from the Hub: cut. Try again: .* already is kept",
        ),
        (OSError("disk full"), "from the Hub: disk full. Try again"),
    ],
)
def test_every_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    """A licence, a name, a revision, the network, an interruption: one sentence each."""

    def fail(*arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr(DiffusionPipeline, "download", fail)
    with pytest.raises(CheckpointError, match=message) as caught:
        hub.fetch_model("o/n", "v2")
    assert "\n" not in str(caught.value)


def test_file_that_a_model_does_not_have_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every model has a `d4k.json`."""

    def fail(*arguments: object, **settings: object) -> None:
        raise EntryNotFoundError("x")

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    assert hub.fetch_file("o/n", "d4k.json") is None


def test_denoiser_on_the_hub_may_be_a_file_or_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a whole model, only the denoiser is downloaded."""
    asked: list[object] = []

    def one(repo: str, file: str) -> str:
        asked.append((repo, file))
        return __file__

    def folder(repo: str, allow_patterns: list[str]) -> Path:
        asked.append((repo, allow_patterns))
        return tmp_path

    monkeypatch.setattr(hub, "hf_hub_download", one)
    monkeypatch.setattr(hub, "snapshot_download", folder)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{}")

    assert hub.fetch_denoiser("o/n/sub/x.safetensors") == Path(__file__)
    assert hub.fetch_denoiser("o/n") == tmp_path / "transformer"
    assert asked == [
        ("o/n", "sub/x.safetensors"), ("o/n", ["transformer/*", "config.json", "diffusion_pytorch_model*"]),
    ]  # fmt: skip
