"""Finding models, loading them with errors that help, and state that is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from huggingface_hub.errors import EntryNotFoundError, HFValidationError

from d4k import Placement, hookimpl
from d4k.errors import CheckpointError, PluginError, UnknownNameError
from d4k.models import (
    CARD,
    Card,
    Model,
    ModelRef,
    Training,
    find_model,
    hub,
    load_pipeline,
    save_pipeline,
    write_card,
)


def model_folder(folder: Path, pipeline: str = "FakePipeline") -> Path:
    """A folder with nothing but an index."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return folder


@pytest.fixture(scope="module")
def diffusers_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers pipeline of a few kilobytes on disk."""
    folder = tmp_path_factory.mktemp("diffusers") / "model"
    unet = UNet2DModel(8, block_out_channels=(4,), norm_num_groups=2, down_block_types=("DownBlock2D",),
                       up_block_types=("UpBlock2D",), layers_per_block=1, attention_head_dim=2)  # fmt: skip
    save_pipeline(DDPMPipeline(unet, DDPMScheduler()), _made(folder))
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def assert_found(
    model: Model, backbone: str, location: str, options: dict[str, Any], training: Training | None = None
) -> None:
    assert (model.backbone, model.location, model.options) == (backbone, location, options)
    assert model.training == (training or Training())


class TestFindModel:
    """A registered name, a local folder, a run, or a Hub id."""

    def test_registered_name(self, fake_plugin: None) -> None:
        """The plugin says where the weights are and which backbone reads them."""
        assert_found(find_model(ModelRef("fake-model")), "fake", "", {})

    def test_folder_is_recognised_by_its_index(self, fake_plugin: None, tmp_path: Path) -> None:
        """`_class_name` of `model_index.json` finds the backbone that named it."""
        folder = model_folder(tmp_path / "model")
        assert_found(find_model(ModelRef(str(folder))), "fake", str(folder), {})

    def test_finished_run_stands_for_its_model(self, fake_plugin: None, tmp_path: Path) -> None:
        """The folder of a run is as good as the model in it."""
        folder = model_folder(tmp_path / "run" / "model")
        assert find_model(ModelRef(str(tmp_path / "run"))).location == str(folder)

    def test_card_decides_backbone_and_options(self, fake_plugin: None, tmp_path: Path) -> None:
        """A model that d4k saved is loaded with what it was saved with, whatever the index says."""
        folder = model_folder(tmp_path / "model", "Unheard")
        write_card(folder, Card("fake", {"seed": 3}))
        assert_found(find_model(ModelRef(str(folder))), "fake", str(folder), {"seed": 3})
        write_card(folder, Card("fake", {"seed": 3}, Training(shift=2.0)))
        assert_found(find_model(ModelRef(str(folder))), "fake", str(folder), {"seed": 3}, Training(shift=2.0))

    @pytest.mark.parametrize("name", ["fak-model", "./nowhere/model", "/nowhere", "a/b/c", "~/model"])
    def test_what_is_none_of_these_is_an_unknown_model(self, fake_plugin: None, name: str) -> None:
        """Known names are listed; a folder or a Hub id are the other ways."""
        with pytest.raises(UnknownNameError, match=r"unknown model .* Known: fake-model\. Or give a folder"):
            find_model(ModelRef(name))

    def test_model_of_a_plugin_that_failed_raises_its_reason(self, install: Callable[..., None]) -> None:
        """The name is not called unknown."""
        install(tiny=ImportError("no weights"))
        with pytest.raises(PluginError, match="checkpoint 'tiny-sd3' is not available: plugin d4k-tiny failed to load"):
            find_model(ModelRef("tiny-sd3"))

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("model_index.json", b"{garbage", r"model_index\.json is not readable JSON"),
            ("model_index.json", b"\xff\xfe", r"model_index\.json is not readable JSON"),
            ("model_index.json", b"[1]", r"model_index\.json must hold a JSON object, got list"),
            (
                "model_index.json",
                b'{"_class_name": "NoPipeline"}',
                "is a NoPipeline, which no installed plugin loads. Known: F",
            ),
            ("model_index.json", None, "has no model_index.json; d4k reads models in the diffusers layout"),
            (CARD, b'{"format": 2}', r"d4k\.json has format 2; this d4k reads format 1: update d4k"),
            (CARD, b'{"format": 1, "options": 5}', r"d4k\.json: options must be a table of options, got 5"),
            (CARD, b'{"format": 1, "training": 5}', r"d4k\.json: training must be a table, got 5"),
        ],
    )
    def test_damaged_folder_is_a_checkpoint_error(
        self, fake_plugin: None, tmp_path: Path, file: str, content: bytes | None, message: str
    ) -> None:
        """The message names the file and what it holds."""
        folder = model_folder(tmp_path / "model")
        if content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            find_model(ModelRef(str(folder)))

    def test_hub_id_is_looked_up(self, fake_plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only `d4k.json`, if there is one, and `model_index.json` are fetched."""
        folder, asked = model_folder(tmp_path / "hub"), []

        def download(model: str, name: str, revision: str | None) -> str:
            asked.append((model, name))
            if name == CARD:
                raise EntryNotFoundError("none")
            return str(folder / name)

        monkeypatch.setattr(hub, "hf_hub_download", download)
        assert_found(find_model(ModelRef("owner/name")), "fake", "owner/name", {})
        assert asked == [("owner/name", CARD), ("owner/name", "model_index.json")]

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (
                OSError("no route\nto host"),
                r"cannot get d4k\.json of 'owner/name' from the Hub: no route\. Try again: .* Offline\?",
            ),
            (HFValidationError("bad id."), r"from the Hub: bad id\. Try again: .* Offline\?"),
            (
                EntryNotFoundError("none"),
                r"owner/name has no model_index\.json, or the Hub cannot be reached\. Offline\?",
            ),
        ],
    )
    def test_hub_that_does_not_answer_is_one_line(
        self, fake_plugin: None, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
    ) -> None:
        """With what to do when offline."""

        def download(model: str, name: str, revision: str | None) -> str:
            raise error

        monkeypatch.setattr(hub, "hf_hub_download", download)
        with pytest.raises(CheckpointError, match=message):
            find_model(ModelRef("owner/name"))


class TestLoadPipeline:
    """diffusers pipelines, from a folder or the Hub."""

    def test_weights_come_back_in_the_dtype_asked_for(self, diffusers_model: Path) -> None:
        """What `save_pipeline` wrote is safetensors and loads again."""
        loaded = load_pipeline(DDPMPipeline, str(diffusers_model), Placement(torch.device("cpu"), torch.bfloat16))
        assert loaded.unet.dtype == torch.bfloat16
        assert [p.suffix for p in (diffusers_model / "unet").glob("diffusion*")] == [".safetensors"]

    @pytest.mark.parametrize("damage", ["cut", "missing", "garbage"])
    def test_damaged_model_is_named_with_the_way_out(self, diffusers_model: Path, tmp_path: Path, damage: str) -> None:
        """One line, whichever of a dozen exceptions was the cause."""
        folder = tmp_path / "copy"
        __import__("shutil").copytree(diffusers_model, folder)
        weights = next(folder.rglob("*.safetensors"))
        if damage == "cut":
            weights.write_bytes(weights.read_bytes()[:1000])
        elif damage == "missing":
            weights.unlink()
        else:
            (folder / "model_index.json").write_text("{")
        with pytest.raises(
            CheckpointError, match=r"cannot load '.*copy' as DDPMPipeline: .* Download it again"
        ) as caught:
            load_pipeline(DDPMPipeline, str(folder), Placement(torch.device("cpu"), torch.float32))
        assert "\n" not in str(caught.value)

    def test_pickled_weights_are_refused(self, diffusers_model: Path, tmp_path: Path) -> None:
        """A folder that holds `.bin` weights only is not loaded: unpickling runs code."""
        folder = tmp_path / "copy"
        __import__("shutil").copytree(diffusers_model, folder)
        weights = next(folder.rglob("*.safetensors"))
        torch.save({}, weights.with_suffix(".bin"))
        weights.unlink()
        with pytest.raises(CheckpointError):
            load_pipeline(DDPMPipeline, str(folder), Placement(torch.device("cpu"), torch.float32))


def test_clash_on_one_name_does_not_stand_against_another(install: Callable[..., None], tmp_path: Path) -> None:
    """Two plugins claim a checkpoint: it cannot be used, and any folder can."""

    @hookimpl
    def register_checkpoints(register: Any) -> None:
        register("twice", backbone="fake", source="owner/twice", summary="a model")

    claim = SimpleNamespace(register_checkpoints=register_checkpoints)
    install(a=claim, b=SimpleNamespace(register_checkpoints=register_checkpoints))
    (tmp_path / CARD).write_text(json.dumps({"format": 1, "backbone": "mine"}))
    assert find_model(ModelRef(str(tmp_path))).backbone == "mine"
    with pytest.raises(PluginError, match="checkpoint 'twice' is claimed by d4k-a"):
        find_model(ModelRef("twice"))
