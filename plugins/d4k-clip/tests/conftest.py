"""CLIP models of a million random weights, as files in each layout, and a tiny aesthetics head."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

WIDTH, SIZE = 16, 32
VISION = {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
CONFIG = {"embed_dim": WIDTH, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`config` and `weights`, both files, and `model`, open_clip's own with the same weights."""
    folder = tmp_path_factory.mktemp("tiny")
    config, weights = folder / "tiny.json", folder / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(10)  # whose cosines are positive but for a few
        model = open_clip.CLIP(**CONFIG).eval()
        for parameter in model.parameters():  # biases and layer norms are not left at 0 and 1
            parameter.data += 0.02 * torch.randn_like(parameter)
    config.write_text(json.dumps(CONFIG))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    return SimpleNamespace(
        config=str(config),
        weights=str(weights),
        model=model,
        options={"model": str(config), "weights": str(weights)},
        transform=open_clip.image_transform(SIZE, is_train=False),
    )


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same sizes by transformers: `weights`, a file in its layout, and `model`."""
    folder = tmp_path_factory.mktemp("twin")
    shared: dict[str, Any] = {"projection_dim": WIDTH, "hidden_act": "quick_gelu"}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}
    text |= {"eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 1}
    vision = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2, "num_hidden_layers": 2}
    vision |= {"image_size": SIZE, "patch_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=WIDTH)
        model = CLIPModel(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.logit_scale.data.fill_(4.5)
    weights, architecture = folder / "model.safetensors", folder / "twin.json"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    architecture.write_text(json.dumps({"model_cfg": CONFIG}))
    return SimpleNamespace(
        weights=str(weights), model=model, options={"model": str(architecture), "weights": str(weights)}
    )


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An aesthetics head for the tiny model: `path`, and `module`, its layers with the dropout between."""
    sizes = [(WIDTH, 24), (24, 12), (12, 6), (6, 4), (4, 1)]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        linear = [nn.Linear(*size) for size in sizes]
    layers = [linear[0], nn.Dropout(0.2), linear[1], nn.Dropout(0.2), linear[2], nn.Dropout(0.1), linear[3], linear[4]]
    module = nn.Sequential(*layers).eval()
    path = tmp_path_factory.mktemp("head") / "head.pth"
    torch.save({f"layers.{name}": tensor for name, tensor in module.state_dict().items()}, path)
    return SimpleNamespace(path=str(path), module=module)


@pytest.fixture(scope="session")
def pictures() -> list[Tensor]:
    """Noise on slopes: tall, wide, square, and smaller than what the model sees."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for height, width in ((90, 50), (40, 130), (64, 64), (20, 24)):
        slope = torch.arange(width).expand(3, height, width) * 2
        made.append((slope + torch.randint(0, 128, (3, height, width), generator=generator)).clamp(0, 255).byte())
    return made


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"
