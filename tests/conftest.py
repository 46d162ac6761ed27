"""What the tests of the core share: a diffusion model of a few hundred weights, a plugin around it, pictures.

The model is a complete `d4k.Backbone`. Its "autoencoder" only rearranges pixels, so that latents are exact, and its
text encoder hashes the prompt, so that equal captions condition equally.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attrs import define, field, frozen
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.loaders.peft import PeftAdapterMixin
from hypothesis import settings
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from d4k import CheckpointError, Conditioning, LatentSpec, Placement, SamplingDefaults, hookimpl
from d4k.config import RunConfig, from_mapping
from d4k.plugins import discovery as plugins
from d4k.plugins import registry

torch.set_num_threads(1)
settings.register_profile("d4k", deadline=None, derandomize=True)  # no timing in tests, equal cases on every run
settings.load_profile("d4k")

FACTOR, TEXT = 2, 4


class Denoiser(nn.Module, PeftAdapterMixin):
    """Two convolutions that see the latent, sigma and the prompt; takes adapters as diffusers' models do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(channels + 1 + TEXT, 8, 3, padding=1)
        self.out = nn.Conv2d(8, channels, 3, padding=1)
        self.checkpointing = False

    def enable_gradient_checkpointing(self) -> None:
        self.checkpointing = True

    def forward(self, noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        said = torch.cat([sigma[:, None], text], 1)[:, :, None, None].expand(-1, -1, *noisy.shape[-2:])
        return self.out(torch.tanh(self.into(torch.cat([noisy, said.to(noisy)], 1))))  # type: ignore[no-any-return]


@define(slots=False, eq=False)
class FakeBackbone:
    """A backbone that loads in a millisecond; `source` is empty for fresh weights, or a folder that `save` wrote."""

    source: str = ""
    seed: int = field(default=0, kw_only=True)
    trainable: nn.Module = field(init=False)
    vae: nn.Module = field(init=False, factory=nn.Identity)

    @property
    def latent(self) -> LatentSpec:
        return LatentSpec(channels=3 * FACTOR**2, downscale=FACTOR, patch=2, max_size=64)

    @property
    def defaults(self) -> SamplingDefaults:
        return SamplingDefaults(size=16, steps=3, guidance=2.0)

    @property
    def trained_options(self) -> dict[str, Any]:
        return {}

    @property
    def components(self) -> dict[str, nn.Module]:
        return {"denoiser": self.trainable, "vae": self.vae}

    def load(self, placement: Placement) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.trainable = Denoiser(self.latent.channels).to(placement.device, placement.dtype).eval()
        if self.source:
            try:
                self.trainable.load_state_dict(load_file(Path(self.source) / "denoiser.safetensors"))
            except Exception as error:
                raise CheckpointError(f"cannot load '{self.source}': {error}") from error

    def encode_text(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
        tensors = {"text": _hashed(prompts)}
        if negative is not None:
            tensors["negative"] = _hashed([negative] * len(prompts))
        device = next(self.trainable.parameters()).device
        return Conditioning({name: tensor.to(device) for name, tensor in tensors.items()})

    def encode_image(self, pixels: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(pixels, FACTOR)

    def decode(self, latent: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(latent, FACTOR)

    def velocity(
        self,
        noisy: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
        progress: float | None = None,
    ) -> Tensor:
        wanted: Tensor = self.trainable(noisy, sigma, conditioning.tensors["text"])
        if guidance is None or "negative" not in conditioning.tensors:
            return wanted
        unwanted: Tensor = self.trainable(noisy, sigma, conditioning.tensors["negative"])
        return unwanted + guidance * (wanted - unwanted)

    def scheduler(self, steps: int, height: int, width: int, shift: float | None = None) -> Any:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift or 1.0)
        scheduler.set_timesteps(steps)
        return scheduler

    def save(self, folder: Path) -> None:
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "FakePipeline"}))
        save_file(self.trainable.state_dict(), folder / "denoiser.safetensors")


def _hashed(prompts: Sequence[str]) -> Tensor:
    digests = [list(hashlib.sha256(prompt.encode()).digest()[:TEXT]) for prompt in prompts]
    return torch.tensor(digests, dtype=torch.float32) / 127.5 - 1


@define(slots=False)
class Brightness:
    """A metric: the mean grey level of the images, and with `scale` options to look at."""

    scale: float = field(default=1.0, kw_only=True)
    needs = frozenset({"image"})
    higher_is_better = True
    unit = "levels"

    def load(self, device: torch.device) -> None:
        """Nothing."""

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        return torch.stack([each.double().mean() * self.scale for each in image])[:, None]

    def score(self, rows: Tensor, references: Tensor | None = None) -> dict[str, float]:
        return {"mean": float(rows.mean()), "largest": float(rows.max())}


class FakePlugin:
    """What a third party would publish around the two classes above."""

    @staticmethod
    @hookimpl
    def register_backbones(register: Any) -> None:
        register("fake", f"{__name__}:FakeBackbone", summary="a toy", pipelines=("FakePipeline",))

    @staticmethod
    @hookimpl
    def register_metrics(register: Any) -> None:
        register("brightness", f"{__name__}:Brightness", summary="mean grey level")

    @staticmethod
    @hookimpl
    def register_checkpoints(register: Any) -> None:
        register("fake-model", backbone="fake", source="", summary="fresh weights")


@frozen
class Point:
    """An entry point whose plugin is at hand; an exception in its place is raised on loading."""

    name: str
    plugin: Any
    version: str = "1.0"

    @property
    def dist(self) -> SimpleNamespace:
        return SimpleNamespace(name=f"d4k-{self.name}", version=self.version)

    def load(self) -> Any:
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`install(name=plugin, ...)`: from now on these plugins are the installed ones, and no others."""

    def do(**found: Any) -> None:
        points = [Point(name, plugin) for name, plugin in found.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: points)
        registry.cache_clear()

    monkeypatch.delenv("D4K_PLUGINS", raising=False)
    yield do
    registry.cache_clear()


@pytest.fixture
def fake_plugin(install: Callable[..., None]) -> None:
    """Only the fake plugin is installed: backbone `fake`, checkpoint `fake-model`, metric `brightness`."""
    install(fake=FakePlugin)


@pytest.fixture
def backbone() -> FakeBackbone:
    """A loaded fake backbone."""
    result = FakeBackbone()
    result.load(Placement(torch.device("cpu"), torch.float32))
    return result


@pytest.fixture
def metric() -> Brightness:
    """A metric that keeps the contract."""
    return Brightness()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five 24x20 pictures `0.png`... with captions beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((24, 20), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}")
    return folder


@pytest.fixture
def run_config(tmp_path: Path) -> Callable[..., RunConfig]:
    """`run_config("name", training={...}, ...)`: settings of a short run into `tmp_path/name`, without a cache."""

    def make(name: str = "run", **sections: Any) -> RunConfig:
        training = {
            "steps": 4,
            "batch_size": 2,
            "save_every": 0,
            "caption_dropout": 0.0,
            **sections.pop("training", {}),
        }
        pictures = {"cache": "off", "workers": 0, **sections.pop("data", {})}
        given = {"model": "fake-model", "dataset": {"name": "folder"}, "loss": {"name": "mse"}, **sections}
        return from_mapping(
            RunConfig, {"output_dir": str(tmp_path / name), **given, "data": pictures, "training": training}
        )

    return make
