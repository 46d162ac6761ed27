"""What a picture is recognised by: perceptual hashes of it, of its eight orientations, and of its parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen
from PIL import Image
from scipy.fft import dctn

from d4k.images import Picture

__all__ = ["Fingerprint", "fingerprint"]

SIDE, KEPT = 64, 9
"""Pixels a side that a picture is reduced to, and lowest frequencies a side that are kept of it."""

PARTS = (1.0, 0.95, 0.9)
"""Shares of width and height of the middle that are hashed, for pictures that were cropped a little."""


@frozen
class Fingerprint:
    """Hashes of 80 bits, as whole numbers; near ones differ in few bits.

    Args:
        turned: of the whole picture in its eight orientations, the first as it is.
        parts: of smaller and smaller middles, as they are.
    """

    turned: tuple[int, ...]
    parts: tuple[int, ...]

    def to_text(self) -> str:
        """For a table or a file.

        >>> Fingerprint((255, 1), (2,)).to_text()
        'ff,1;2'
        """
        return ";".join(",".join(f"{value:x}" for value in values) for values in (self.turned, self.parts))

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """What `to_text` wrote.

        >>> Fingerprint.from_text("ff,1;2")
        Fingerprint(turned=(255, 1), parts=(2,))
        """
        turned, parts = (tuple(int(value, 16) for value in values.split(",")) for values in text.split(";"))
        return cls(turned, parts)


def fingerprint(picture: Picture) -> Fingerprint:
    """The fingerprint of a picture.

    Its luma is reduced to 64x64 pixels; a bit says of one of the 80 lowest frequencies of the discrete cosine transform
    but the mean whether it is above the median of all. Turning and mirroring a picture exchanges and negates these
    frequencies, so all eight orientations come from one transform.

    Source: the perceptual hash of Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    whole = Image.fromarray(picture.luma)
    low = _low(whole)
    turned = tuple(_bits(one) for one in orientations(low))
    return Fingerprint(turned, tuple(_bits(_low(_middle(whole, share))) for share in PARTS[1:]))


def orientations(low: np.ndarray) -> list[np.ndarray]:
    """The lowest frequencies (K, K) of a square picture in its eight orientations, the first as it is."""
    signs = np.where(np.arange(len(low)) % 2, -1.0, 1.0)
    mirrored = [low, low * signs, low * signs[:, None], low * signs * signs[:, None]]
    return [*mirrored, *(one.T for one in mirrored)]


def distances(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> np.ndarray:
    """(M, N) bits in which pictures differ, in the orientation and by the parts in which they differ least.

    Args:
        one: `packed` fingerprints of M pictures.
        other: of N pictures.
    """
    pairs = [
        (one["whole"][:, None], other["turned"].transpose(1, 0, 2)[:, None]),
        (one["parts"].transpose(1, 0, 2)[:, :, None], other["whole"][None, None]),
        (one["whole"][None, :, None], other["parts"].transpose(1, 0, 2)[:, None]),
    ]
    least = None
    for left, right in pairs:
        bits = np.bitwise_count(left ^ right).sum(-1, dtype=np.uint8).min(0)
        least = bits if least is None else np.minimum(least, bits)
    assert least is not None
    return np.asarray(least)


def packed(prints: list[Fingerprint]) -> dict[str, np.ndarray]:
    """Fingerprints as arrays of two 64-bit words a hash: `whole` (N, 2), `turned` (N, 8, 2) and `parts` (N, P, 2)."""

    def words(values: tuple[int, ...]) -> list[tuple[int, int]]:
        return [(value >> 64, value & (2**64 - 1)) for value in values]

    turned = np.array([words(one.turned) for one in prints], np.uint64)
    return {"whole": turned[:, 0], "turned": turned, "parts": np.array([words(p.parts) for p in prints], np.uint64)}


def _low(image: Image.Image) -> np.ndarray:
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(dctn(np.asarray(small, np.float64), norm="ortho")[:KEPT, :KEPT])


def _middle(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    left, top = width * (1 - share) / 2, height * (1 - share) / 2
    return image.crop((round(left), round(top), round(width - left), round(height - top)))


def _bits(low: np.ndarray) -> int:
    values = low.reshape(-1)[1:]
    number = 0
    for bit in values > np.median(values):
        number = number << 1 | int(bit)
    return number
