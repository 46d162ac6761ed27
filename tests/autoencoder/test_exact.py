"""Banded encoding and decoding against diffusers' own untiled run."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d4k import ConfigError, machine
from d4k.autoencoder import decode, encode, footprint, own_downscale
from d4k.autoencoder.maps import Moments


def make_vae(channels: tuple[int, ...] = (16, 24, 32), **options: Any) -> Any:
    """A small autoencoder with random weights; norms are random too, so that they matter."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        **{"latent_channels": 4, "norm_num_groups": 4, "scaling_factor": 0.7, "shift_factor": 0.1} | options,
    ).eval()
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return vae


@torch.no_grad()
def whole_encode(vae: Any, pixels: Tensor, double: bool = False) -> Tensor:
    """Diffusers' encoder at once; with stride 2 at its entrance where `double`."""
    vae = copy.deepcopy(vae)
    vae.encoder.conv_in.stride = (2, 2) if double else (1, 1)
    return (vae.encode(pixels.to(vae.dtype)).latent_dist.mode() - 0.1) * 0.7


@torch.no_grad()
def whole_decode(vae: Any, latents: Tensor, double: bool = False) -> Tensor:
    """Diffusers' decoder at once; enlarged before its last convolution where `double`."""
    vae = copy.deepcopy(vae)
    if double:
        vae.decoder.conv_out = torch.nn.Sequential(torch.nn.UpsamplingNearest2d(scale_factor=2), vae.decoder.conv_out)
    return vae.decode(latents.to(vae.dtype) / 0.7 + 0.1).sample


def assert_as_good(ours: Tensor, theirs: Tensor, exact: Tensor) -> None:
    """Both round differently: ours may be hardly further from the float64 result than theirs."""
    error, allowed = ((result.double() - exact).abs().max().item() for result in (ours, theirs))
    step = 2e-5 if ours.dtype == torch.float32 else 4 * torch.finfo(ours.dtype).eps
    assert error <= 1.5 * allowed + step * exact.abs().max().item()


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration, a size, a limit between the least and all, and a dtype."""
    stages = draw(st.integers(1, 3))
    return {
        "channels": tuple(draw(st.sampled_from([4, 8, 12, 16])) for _ in range(stages)),
        "layers": draw(st.integers(1, 2)),
        "attention": draw(st.booleans()),
        "quant": draw(st.booleans()),
        "act": draw(st.sampled_from(["silu", "gelu"])),
        "batch": draw(st.integers(1, 2)),
        "rows": draw(st.integers(1, 21)),
        "columns": draw(st.integers(2, 9)),
        "share": draw(st.sampled_from([0.0, 0.1, 0.4, 1.0, None])),
        "double": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
    }


@settings(max_examples=60)
@given(case=cases(), encoding=st.booleans())
def test_banded_equals_untiled(case: dict[str, Any], encoding: bool) -> None:
    """Whatever the configuration, size, memory and dtype, F8 and F16."""
    vae = make_vae(
        case["channels"], layers_per_block=case["layers"], mid_block_add_attention=case["attention"],
        use_quant_conv=case["quant"], use_post_quant_conv=case["quant"], act_fn=case["act"],
    )  # fmt: skip
    exact_vae, double = copy.deepcopy(vae).double(), case["double"]
    vae.to(case["dtype"])
    downscale = own_downscale(vae) * (2 if double else 1)
    height, width = case["rows"] * downscale, case["columns"] * downscale
    shape = (case["batch"], 3, height, width) if encoding else (case["batch"], 4, case["rows"], case["columns"])
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = values.to(case["dtype"])
    memory_gb = limit(vae, height, width, downscale, encoding, case["share"])

    ours = (encode if encoding else decode)(vae, values, downscale=downscale, memory_gb=memory_gb)

    whole = whole_encode if encoding else whole_decode
    assert ours.dtype == case["dtype"]
    assert_as_good(ours, whole(vae, values, double), whole(exact_vae, values, double))


def limit(vae: Any, height: int, width: int, downscale: int, encoding: bool, share: float | None) -> float | None:
    """Some way from the least memory to all of it; None measures what is free."""
    if share is None:
        return None
    least, most = (
        footprint(vae, height, width, downscale=downscale, memory_gb=gb, encoding=encoding) / 1e9 for gb in (0, None)
    )
    return least + share * (most - least)


@pytest.mark.parametrize("downscale", [4, 8])
@pytest.mark.parametrize("encoding", [False, True])
def test_memory_changes_nothing(downscale: int, encoding: bool) -> None:
    """From the least memory to plenty: to the bit with AVX-512, elsewhere but for the rounding of other kernels."""
    vae = make_vae()
    values = torch.randn(1, 3, 24 * downscale, 16 * downscale) if encoding else torch.randn(1, 4, 24, 16)
    shares = (0.0, 0.05, 0.2, 0.6, 1.0)
    limits = [limit(vae, 24 * downscale, 16 * downscale, downscale, encoding, share) for share in shares]

    run = encode if encoding else decode
    results = [run(vae, values, downscale=downscale, memory_gb=memory_gb) for memory_gb in limits]

    # without AVX-512, PyTorch picks kernels of convolution by the height of a band, and they add up in other orders
    rounding = 0 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 2e-6
    assert all((result - results[0]).abs().max() <= rounding for result in results)


def test_f16_is_not_shifted() -> None:
    """Pixel for pixel the decoder with the enlargement in its place; its neighbours one pixel off are not."""
    vae = make_vae()
    latents = torch.randn(1, 4, 12, 10)
    expected = whole_decode(vae, latents, double=True)

    ours = decode(vae, latents, downscale=8)

    assert ours.shape == (1, 3, 96, 80)
    assert (ours - expected).abs().max() < 1e-5
    assert (ours[..., 1:, 1:] - expected[..., :-1, :-1]).abs().max() > 0.01


def test_tiles_change_the_picture_and_bands_do_not() -> None:
    """What the bands are for: tiles of diffusers normalise each by its own statistics."""
    vae = make_vae(sample_size=32)
    latents = torch.randn(1, 4, 24, 24)
    expected = whole_decode(vae, latents)
    least = footprint(vae, 96, 96, downscale=4, memory_gb=0) / 1e9

    assert (decode(vae, latents, downscale=4, memory_gb=least) - expected).abs().max() < 1e-5
    vae.enable_tiling()
    assert (whole_decode(vae, latents) - expected).abs().max() > 0.1


def test_large_values_far_from_zero_keep_their_variance() -> None:
    """Means a thousand times the deviation do not drown it."""
    band = torch.randn(1, 6, 40, 30) * 0.5 + 1000
    moments = Moments()
    for first in range(0, 40, 16):
        moments.add(band[:, :, first : first + 16])

    variance, mean = torch.var_mean(band[0].double().flatten(1), 1, correction=0)

    assert torch.allclose(moments.mean, mean, rtol=1e-7)
    assert torch.allclose(moments.squares / moments.count, variance, rtol=1e-4)


def test_affine_is_group_norm() -> None:
    """Scale and shift do what torch's own layer does."""
    norm = torch.nn.GroupNorm(3, 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    band = torch.randn(1, 6, 24, 10)
    moments = Moments()
    moments.add(band)

    scale, shift = moments.affine(norm)

    assert torch.allclose(band * scale + shift, norm(band), atol=1e-6)


@pytest.mark.parametrize("encoding", [False, True])
def test_a_plan_keeps_its_limit(encoding: bool) -> None:
    """The footprint falls with the limit and stays within it; on the meta device it is the same."""
    vae = make_vae((128, 256, 512, 512), latent_channels=16, norm_num_groups=32)
    with torch.device("meta"):
        shapes = AutoencoderKL.from_config(vae.config)
    sizes = dict.fromkeys(("height", "width"), 1024) | {"downscale": 8, "encoding": encoding}
    least, most = (footprint(vae, **sizes, memory_gb=gb) for gb in (0, None))

    assert 0 < least < 0.75 * most
    for share in (0.0, 0.1, 0.3, 0.7, 1.0):
        memory = least + share * (most - least)
        assert footprint(vae, **sizes, memory_gb=memory / 1e9) <= memory
    assert footprint(shapes, **sizes, memory_gb=0) == least


PEAK = """
import json, psutil, torch
from diffusers import AutoencoderKL
from d4k.autoencoder import {name}
torch.set_num_threads(1)
torch.manual_seed(0)
vae = AutoencoderKL(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
                    up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, mid_block_add_attention=False)
{name}(vae, torch.randn({small}), downscale=2, memory_gb=1)
before = psutil.Process().memory_info().rss
{name}(vae, torch.randn({shape}), downscale=2, memory_gb={limit})
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps(int(peak[0]) * 1024 - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize(
    ("name", "small", "shape"),
    [("decode", "1, 4, 32, 32", "1, 4, 512, 512"), ("encode", "1, 3, 64, 64", "1, 3, 1024, 1024")],
)
def test_the_limit_holds_in_a_fresh_process(name: str, small: str, shape: str) -> None:
    """What the operating system says a process took is what was allowed, give or take a tenth and the heap."""
    vae = make_vae((32, 32), norm_num_groups=32, mid_block_add_attention=False)
    sizes = {"height": 1024, "width": 1024, "downscale": 2, "encoding": name == "encode"}
    limit = 1.3 * footprint(vae, **sizes, memory_gb=0) / 1e9
    code = PEAK.format(name=name, small=small, shape=shape, limit=limit)

    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": ""})

    assert json.loads(done.stdout) < 1.1e9 * limit + 80e6  # the heap keeps some; without a limit it takes 400 MB


@pytest.mark.parametrize(("run", "shape"), [(encode, (1, 3, 16, 16)), (decode, (1, 4, 4, 4))])
def test_gradients_are_refused(run: Any, shape: tuple[int, ...]) -> None:
    """Inference only: asking for a gradient is an error, not a silent zero."""
    values = torch.randn(shape, requires_grad=True)
    with pytest.raises(ConfigError, match="for inference and gives no gradient; detach"):
        run(make_vae(), values, downscale=4)
    with torch.no_grad():
        assert not run(make_vae(), values, downscale=4).requires_grad


def test_too_little_memory_is_refused_with_the_figure_that_works() -> None:
    """Before anything is computed, and the least that is named is enough."""
    vae = make_vae()
    with pytest.raises(
        ConfigError, match=r"memory_gb=0.0001 is too little to decode 64x48 pixels in float32"
    ) as caught:
        decode(vae, torch.randn(1, 4, 12, 16), downscale=4, memory_gb=0.0001)
    least = float(str(caught.value).partition("at least ")[2].partition(" ")[0].rstrip("."))
    assert decode(vae, torch.randn(1, 4, 12, 16), downscale=4, memory_gb=least).shape == (1, 3, 48, 64)


def test_other_factors_are_refused() -> None:
    """Only the autoencoder's own and twice that."""
    with pytest.raises(ConfigError, match="downscale is 16; with this autoencoder it must be 4 or 8"):
        decode(make_vae(), torch.randn(1, 4, 4, 4), downscale=16)


def test_wrong_channels_are_refused() -> None:
    """Pixels are not latents."""
    with pytest.raises(ConfigError, match=r"expected values of shape \(B, 4, height, width\), got \(1, 3, 8, 8\)"):
        decode(make_vae(), torch.randn(1, 3, 8, 8), downscale=4)


def test_other_architectures_are_refused() -> None:
    """A block that the bands do not know is named."""
    vae = AutoencoderKL(down_block_types=("AttnDownEncoderBlock2D",), block_out_channels=(32,))
    with pytest.raises(ConfigError, match="AttnDownEncoderBlock2D, UpDecoderBlock2D cannot be run in bands"):
        encode(vae, torch.randn(1, 3, 8, 8), downscale=1)


def test_free_memory_is_the_least_of_machine_and_group(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's limit counts, what its files occupy does not."""
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    cpu = torch.device("cpu")
    assert machine.free_bytes(cpu) > 1e6
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_bytes(cpu) > 1e6
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 2000\ninactive_file 1000\n")
    assert machine.free_bytes(cpu) == 3000


def test_free_memory_of_a_gpu_counts_what_torch_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that torch has reserved and does not use is free for it."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10)
    assert machine.free_bytes(torch.device("cuda")) == 120


def test_free_memory_of_mps_is_what_it_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less what the driver has given out."""
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 100)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 30)
    assert machine.free_bytes(torch.device("mps")) == 70
