"""What every captioner does with a picture before it is described: make it small enough."""

from __future__ import annotations

from PIL import Image

__all__ = ["shrunk"]


def shrunk(image: Image.Image, size: int) -> Image.Image:
    """A picture whose longer side has at most `size` pixels; the given one stays as it is.

    >>> shrunk(Image.new("RGB", (4000, 3000)), 1024).size
    (1024, 768)
    """
    if max(image.size) <= size:
        return image
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
