"""Random weights of the true architectures, in files as the published ones are laid out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from transformers import Dinov2Config, Dinov2Model

from d4k_fid import networks

DINOV2 = {"dinov2-vit-s-14": (384, 12, 6), "dinov2-vit-b-14": (768, 12, 12), "dinov2-vit-l-14": (1024, 24, 16)}
RENAMED = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.": "",
    "encoder.layer.": "blocks.",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm": "norm",
}


@pytest.fixture(scope="session", autouse=True)
def _no_network_is_left():
    """What tests place is shared among them, and forgotten in the end."""
    yield
    networks.release()


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory) -> Path:
    """Inception whose features differ between pictures."""
    with pytest.MonkeyPatch.context() as patch:
        module = "torch_fidelity.feature_extractor_inceptionv3"
        patch.setattr(f"{module}.load_state_dict_from_url", lambda *args, **options: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, tensors: None)
        extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    generator = torch.Generator().manual_seed(0)
    for layer in extractor.modules():
        if isinstance(layer, nn.Conv2d):
            fan = layer.weight[0].numel()
            layer.weight.normal_(std=(2 / fan) ** 0.5, generator=generator)
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.normal_(std=0.1, generator=generator)
    file = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(extractor.state_dict(), file)
    return file


def dinov2(network: str, size: int = 518) -> Dinov2Model:
    """The architecture as transformers has it."""
    width, depth, heads = DINOV2[network]
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, image_size=size, patch_size=14
    )
    return Dinov2Model(config).eval()


def published_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of transformers under the names of DINOv2's own files, where queries, keys and values are one."""
    found, parts = {}, {}
    for name, tensor in tensors.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        for part in ("q_proj", "k_proj", "v_proj"):
            if part in name:
                parts.setdefault(name.replace(f"attention.{part}", "attn.qkv"), []).append(tensor)
                break
        else:
            found[name] = tensor
    return found | {name: torch.cat(three) for name, three in parts.items()}


@pytest.fixture(scope="session")
def dinov2_small() -> Dinov2Model:
    """ViT-S/14 with random weights, of which none is zero or one throughout."""
    model = dinov2("dinov2-vit-s-14")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.normal_(std=0.05, generator=generator)
    return model


@pytest.fixture(scope="session")
def dinov2_file(dinov2_small, tmp_path_factory) -> Path:
    """Its file."""
    file = tmp_path_factory.mktemp("dinov2") / "dinov2.pth"
    torch.save(published_names(dinov2_small.state_dict()), file)
    return file


@pytest.fixture(scope="session")
def pictures() -> list[torch.Tensor]:
    """Ten small pictures: two sets of five, the second one smoother and darker."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(10):
        noise = torch.rand(1, 3, 8 if number < 5 else 4, 8, generator=generator)
        grown = nn.functional.interpolate(noise, (64, 64), mode="bilinear")[0]
        made.append(((255 if number < 5 else 100) * grown).to(torch.uint8))
    return made
