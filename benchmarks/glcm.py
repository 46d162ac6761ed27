"""How much faster the GLCM score is than the same score computed with scikit-image, at any texture.

Both score the same pictures on the same cores, in turns, and the scores must be equal. Two ratios are printed: of the
time on the clock, which depends on how many cores are free, and of the time that processors spent, which does not.

    python benchmarks/glcm.py [--pairs N] [--threads 1 2] [--size 2048]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from skimage import data
from skimage.feature import graycomatrix
from skimage.measure import shannon_entropy
from skimage.transform import resize

from d4k_glcm.metrics import GLCMScore

PATCH = 64
Picture = npt.NDArray[np.uint8]


@frozen
class Run:
    """One scoring: seconds on the clock, seconds of processors, and the score."""

    wall: float
    processor: float
    score: float


def pictures(size: int) -> dict[str, Picture]:
    """Three textures, each (3, size, size): one grey, a photograph that scikit-image carries, enlarged, and noise."""
    photograph = (resize(data.hubble_deep_field(), (size, size)) * 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (3, size, size), dtype=np.uint8)
    return {
        "flat": np.full((3, size, size), 100, np.uint8),
        "photograph": np.ascontiguousarray(photograph.transpose(2, 0, 1)),
        "noise": noise,
    }


def scikit_image_score(picture: Picture) -> float:
    """The published computation, patch by patch."""
    red, green, blue = picture.astype(np.int32)
    levels = ((red * 4899 + green * 9617 + blue * 1868 + 8192 >> 14) // 4).astype(np.uint8)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    scores = [
        shannon_entropy(graycomatrix(levels[y : y + PATCH, x : x + PATCH], [1, 2, 3, 4], angles, 64, normed=True))
        for y in range(0, levels.shape[0], PATCH)
        for x in range(0, levels.shape[1], PATCH)
    ]
    return float(np.mean(scores))


def d4k_score(picture: Picture) -> float:
    """The registered metric."""
    metric = GLCMScore()
    return metric.score(metric.observe([torch.from_numpy(picture)]))


def timed(score: Callable[[Picture], float], picture: Picture) -> Run:
    """Score a picture once."""
    wall, processor = time.perf_counter(), time.process_time()
    value = score(picture)
    return Run(time.perf_counter() - wall, time.process_time() - processor, value)


def compare(name: str, picture: Picture, pairs: int) -> None:
    """Print the medians of both, and of the ratios of neighbouring runs."""
    runs = [(timed(scikit_image_score, picture), timed(d4k_score, picture)) for _ in range(pairs)]
    theirs, ours = (statistics.median(run[side].wall for run in runs) for side in (0, 1))
    wall = statistics.median(peer.wall / mine.wall for peer, mine in runs)
    processor = statistics.median(peer.processor / mine.processor for peer, mine in runs)
    print(
        f"{name:<11} {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ' '}  "
        f"scikit-image {theirs:.3f} s, d4k {ours:.4f} s  ratio {wall:5.1f} on the clock, "
        f"{processor:5.1f} of processors  score {runs[0][1].score:.9f}",
        flush=True,
    )
    if (difference := max(abs(peer.score - mine.score) for peer, mine in runs)) > 1e-9:
        raise SystemExit(f"{name}: the scores differ by {difference:.1e}")


def main() -> None:
    """Compare on three textures, with each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="how many alternating pairs to time")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads of d4k")
    parser.add_argument("--size", type=int, default=2048, help="pixels a side, a multiple of 64")
    options = parser.parse_args()
    print(
        f"GLCM score of {options.size}x{options.size}, median of {options.pairs} pairs: "
        f"scikit-image {version('scikit-image')} (numpy {np.__version__}), d4k (numba {version('numba')})"
    )
    made = pictures(options.size)
    d4k_score(made["flat"][:, :PATCH, :PATCH].copy())  # compiles
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, picture in made.items():
            compare(name, picture, options.pairs)


if __name__ == "__main__":
    main()
