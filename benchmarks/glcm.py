"""How much faster the GLCM score is than the same score computed with scikit-image.

Both score the same 2048x2048 photograph on the same cores, in turns, and the scores must be equal.

    python benchmarks/glcm.py [--pairs N]
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
from skimage import data
from skimage.feature import graycomatrix
from skimage.measure import shannon_entropy
from skimage.transform import resize

from d4k_glcm.metrics import GLCMScore

SIZE, PATCH = 2048, 64
Photo = npt.NDArray[np.uint8]


def scikit_image_score(photo: Photo) -> float:
    """The published computation, patch by patch."""
    red, green, blue = photo.astype(np.int32).transpose(2, 0, 1)
    levels = ((red * 4899 + green * 9617 + blue * 1868 + 8192 >> 14) // 4).astype(np.uint8)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    scores = [
        shannon_entropy(graycomatrix(levels[y : y + PATCH, x : x + PATCH], [1, 2, 3, 4], angles, 64, normed=True))
        for y in range(0, SIZE, PATCH)
        for x in range(0, SIZE, PATCH)
    ]
    return float(np.mean(scores))


def d4k_score(photo: Photo) -> float:
    """The registered metric."""
    metric = GLCMScore()
    metric.update(image=torch.from_numpy(photo).permute(2, 0, 1)[None])
    return metric.compute()


def timed(score: Callable[[Photo], float], photo: Photo) -> tuple[float, float]:
    """Seconds, and the score."""
    start = time.perf_counter()
    value = score(photo)
    return time.perf_counter() - start, value


def main() -> None:
    """Compare on a photograph that scikit-image carries, enlarged to 2048x2048."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="how many alternating pairs to time")
    parser.add_argument("--photo", default="hubble_deep_field", help="name of the photograph in skimage.data")
    options = parser.parse_args()
    photo = (resize(getattr(data, options.photo)(), (SIZE, SIZE)) * 255).astype(np.uint8)
    d4k_score(photo[:PATCH, :PATCH])  # compiles
    runs = [(timed(scikit_image_score, photo), timed(d4k_score, photo)) for _ in range(options.pairs)]
    theirs, ours = (statistics.median(run[side][0] for run in runs) for side in (0, 1))
    ratio = statistics.median(peer[0] / mine[0] for peer, mine in runs)
    difference = max(abs(peer[1] - mine[1]) for peer, mine in runs)
    print(
        f"scikit-image {version('scikit-image')} (numpy {np.__version__}): {theirs:.2f} s, "
        f"d4k ({torch.get_num_threads()} threads): {ours:.3f} s, ratio {ratio:.1f} (median of {options.pairs} pairs); "
        f"scores {runs[0][0][1]:.9f} and {runs[0][1][1]:.9f}"
    )
    if difference > 1e-9:
        raise SystemExit(f"the scores differ by {difference:.1e}")


if __name__ == "__main__":
    main()
