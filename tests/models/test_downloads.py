"""What loading would fetch from the Hub is known before anything is fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from d4k.models import ModelRef, missing_from_cache

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`cache("owner/name", "file", ref="main")`: a Hub cache with that file."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def store(repo: str, file: str, ref: str = "main") -> None:
        home = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / ref).write_text(COMMIT)
        path = home / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    return store


@pytest.mark.usefixtures("cache")
def test_every_hub_id_that_is_not_cached_is_named_once() -> None:
    """The model, its denoiser and its adapters; single files by their path."""
    ref = ModelRef("o/model", transformer="o/denoiser/x.safetensors", adapters={"o/a": 1.0, "o/model": 1.0})
    assert missing_from_cache(ref) == ["o/model", "o/denoiser/x.safetensors", "o/a"]


def test_what_is_cached_or_on_this_disk_is_not_named(cache: Callable[..., None], tmp_path: Path) -> None:
    """Registered names, folders, files, and what was downloaded before."""
    cache("o/model", "model_index.json")
    cache("o/denoiser", "transformer/config.json")
    cache("o/a", "sub/style.safetensors")
    (tmp_path / "b.safetensors").write_text("x")
    adapters = {"o/a/sub/style.safetensors": 1.0, str(tmp_path / "b.safetensors"): 1.0}
    assert missing_from_cache(ModelRef("o/model", transformer="o/denoiser", adapters=adapters)) == []
    assert missing_from_cache(ModelRef("tiny-sd3")) == []
    assert missing_from_cache(ModelRef(str(tmp_path))) == []


def test_another_revision_is_another_download(cache: Callable[..., None]) -> None:
    """A branch, a tag or a commit."""
    cache("o/model", "model_index.json", "v1")
    assert missing_from_cache(ModelRef("o/model", revision="v1")) == []
    assert missing_from_cache(ModelRef("o/model", revision=COMMIT)) == []
    assert missing_from_cache(ModelRef("o/model", revision="v2")) == ["o/model"]


@pytest.mark.usefixtures("cache")
def test_registered_models_are_named_by_their_hub_id() -> None:
    """That is what would be fetched."""
    assert missing_from_cache(ModelRef("flux-wavelet")) == ["zhang0jhon/flux_wavelet"]


@pytest.mark.usefixtures("cache")
def test_base_of_an_adapter_counts(tmp_path: Path) -> None:
    """Its folder stands for the model it was trained on; a circle of bases ends."""
    for name, base in (("run/adapter", "o/base"), ("circle", str(tmp_path / "circle"))):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "d4k.json").write_text(json.dumps({"format": 1, "base": base, "transformer": "o/other"}))
    for folder in ("run", "run/adapter"):
        assert missing_from_cache(ModelRef(str(tmp_path / folder))) == ["o/base", "o/other"]
    assert missing_from_cache(ModelRef(str(tmp_path / "circle"))) == ["o/other"]
