"""No attention holds the table of all pairs of tokens, which for 65,536 of them is 8 GB a head in bfloat16.

Every operation of the real code is seen, on pictures of more tokens than any layer has channels. Then only a table of
scores has as many numbers as the square of the tokens; the next largest tensor is SD3's table of positions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from d4k import Pipeline, autoencoder
from d4k.upstream import TorchDispatchMode, tree_leaves

SIDE = 44
TOKENS = SIDE**2
CASES = [
    ("tiny-flux", {}),
    ("tiny-flux", {"positions": "interpolate"}),
    ("tiny-flux", {"positions": "resonance-yarn"}),
    ("tiny-flux", {"positions": "yarn", "temperature": "proportional"}),
    ("tiny-sd3", {}),
    ("tiny-sd3", {"positions": "interpolate", "temperature": "proportional"}),
]


class Largest(TorchDispatchMode):  # type: ignore[misc]
    """The most numbers that the result of an operation had."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *made])
        return result


def largest(model: str, options: dict[str, Any], backend: list[SDPBackend]) -> int:
    """Of one velocity; the first block of each kind is enough."""
    backbone = Pipeline.from_pretrained(model, device="cpu", trained_size=256, **options).backbone
    for name in ("transformer_blocks", "single_transformer_blocks"):
        if hasattr(backbone.trainable, name):
            setattr(backbone.trainable, name, nn.ModuleList(list(getattr(backbone.trainable, name))[:1]))
    text = backbone.encode_text(["a tabby cat"])
    noisy = torch.randn(1, 16, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), sdpa_kernel(backend), Largest() as seen:
        backbone.velocity(noisy, torch.tensor([0.5]), text)
    return seen.numbers


FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""What PyTorch chooses from by default, the best that can be had first."""


@pytest.mark.parametrize(("model", "options"), CASES)
def test_a_denoiser_never_holds_all_scores(model: str, options: dict[str, Any]) -> None:
    """With any positions and any temperature."""
    assert largest(model, options, FUSED) < TOKENS**2


@pytest.mark.parametrize("model", ["tiny-flux", "tiny-sd3"])
def test_scores_would_be_seen(model: str) -> None:
    """With the one kernel that holds them they are the largest tensor by far."""
    assert largest(model, {}, [SDPBackend.MATH]) >= 6 * TOKENS**2


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4, latent_channels=16,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("memory_gb", [None, 0.02], ids=["whole", "in bands"])
def test_an_autoencoder_never_holds_all_scores(vae: AutoencoderKL, memory_gb: float | None) -> None:
    """Its middle attends to every latent row and column at once: 4,096 positions of 512 pixels."""
    pixels = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad(), Largest() as seen:
        latent = autoencoder.encode(vae, pixels, downscale=8, memory_gb=memory_gb)
        autoencoder.decode(vae, latent, downscale=8, memory_gb=memory_gb)
    assert latent.shape == (1, 16, 64, 64)
    assert seen.numbers < (64 * 64) ** 2
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Largest() as seen:
        autoencoder.decode(vae, latent, downscale=8, memory_gb=memory_gb)
    assert seen.numbers >= (64 * 64) ** 2
