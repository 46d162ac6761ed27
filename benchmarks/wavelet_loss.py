"""How much faster the wavelet loss is than the same loss written with another library.

Forward and backward of the published form (Haar, one level, mean square) on a (4, 16, 256, 256) latent, which is what
a batch of four 4096-pixel pictures becomes. The peer transforms prediction and target, as its users do.

    python benchmarks/wavelet_loss.py [--pairs N]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor

from d4k import FlowStep
from d4k_wavelet.loss import WaveletLoss

SHAPE = (4, 16, 256, 256)
Objective = Callable[[Tensor], Tensor]


def ours(step: FlowStep) -> Objective:
    """d4k, with a target of velocity, which is what the peers below compute."""
    with warnings.catch_warnings(action="ignore"):
        loss = WaveletLoss(levels=1, weights="unit", target="velocity")
    return lambda velocity: loss(velocity, step).mean()


def ptwt_loss(step: FlowStep) -> Objective:
    """The same with ptwt."""
    import ptwt

    def subbands(x: Tensor) -> Tensor:
        smooth, detail = ptwt.wavedec2(x, "haar", mode="zero", level=1)
        return torch.cat([smooth, *detail], dim=1)

    return lambda velocity: F.mse_loss(subbands(velocity), subbands(step.velocity))


def pytorch_wavelets_loss(step: FlowStep) -> Objective:
    """The same with pytorch_wavelets."""
    from pytorch_wavelets import DWTForward  # type: ignore[import-not-found]

    transform = DWTForward(J=1, wave="haar", mode="zero")

    def subbands(x: Tensor) -> Tensor:
        smooth, (detail,) = transform(x)
        return torch.cat([smooth.unsqueeze(2), detail], dim=2)

    return lambda velocity: F.mse_loss(subbands(velocity), subbands(step.velocity))


def seconds(objective: Objective, velocity: Tensor) -> tuple[float, float]:
    """Time of one forward and backward, and the value."""
    velocity.grad = None
    start = time.perf_counter()
    value = objective(velocity)
    torch.autograd.backward(value)
    return time.perf_counter() - start, value.item()


def compare(name: str, peer: Objective, mine: Objective, velocity: Tensor, pairs: int) -> float:
    """Alternate peer and d4k, print the median of the ratios of neighbouring runs, and return it."""
    runs = [(seconds(peer, velocity), seconds(mine, velocity)) for _ in range(pairs + 2)][2:]
    theirs, own = (statistics.median(run[side][0] for run in runs) * 1e3 for side in (0, 1))
    ratio = statistics.median(peer_run[0] / own_run[0] for peer_run, own_run in runs)
    difference = abs(runs[0][0][1] / runs[0][1][1] - 1)
    print(
        f"{name} {version(name)}: {theirs:.1f} ms, d4k: {own:.1f} ms, ratio {ratio:.2f} (median of {pairs} pairs); "
        f"values differ by {difference:.1e}"
    )
    return ratio


def main() -> None:
    """Compare with every peer that imports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15, help="how many alternating pairs to time")
    pairs = parser.parse_args().pairs
    torch.manual_seed(0)
    step = FlowStep(torch.randn(SHAPE), torch.randn(SHAPE), torch.rand(SHAPE[0]))
    velocity = torch.randn(SHAPE, requires_grad=True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32 on CPU, latent {SHAPE}")
    for name, peer in {"ptwt": ptwt_loss, "pytorch_wavelets": pytorch_wavelets_loss}.items():
        try:
            objective = peer(step)
        except ImportError as error:
            print(f"{name}: left out, it does not import ({error})")
            continue
        compare(name, objective, ours(step), velocity, pairs)


if __name__ == "__main__":
    main()
