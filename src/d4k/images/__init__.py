"""Pictures: read as correct RGB, cropped, turned into tensors and back, written with their recipe.

Pixels are 8-bit RGB, as PIL pictures or as uint8 tensors (3, H, W); in flight through a model, float32 in [-1, 1].
"""

from d4k.images.crop import Crop, Cut
from d4k.images.picture import Picture
from d4k.images.pixels import to_float, to_picture, to_tensor, to_uint8
from d4k.images.read import MAX_PIXELS, list_pictures, open_picture, picture_size
from d4k.images.upscale import Bicubic, Lanczos
from d4k.images.write import read_recipe, save_picture

__all__ = [
    "MAX_PIXELS",
    "Bicubic",
    "Crop",
    "Cut",
    "Lanczos",
    "Picture",
    "list_pictures",
    "open_picture",
    "picture_size",
    "read_recipe",
    "save_picture",
    "to_float",
    "to_picture",
    "to_tensor",
    "to_uint8",
]
