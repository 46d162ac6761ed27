"""The recipe in a picture: read, checked, and which versions wrote it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from d4k import __version__
from d4k.errors import DataError
from d4k.records import RecipeRecord, read_record

__all__ = ["NEEDED", "check_recipe", "versions"]

NEEDED = ("prompt", "seed", "model", "width", "height", "steps", "guidance")


def check_recipe(recipe: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A recipe that can be repeated; warns if it was made by other versions of d4k, diffusers or torch.

    Args:
        recipe: as `d4k.images.read_recipe` returns it.
        path: where it was read from, for messages.

    Returns:
        The recipe with all of its keys, those that this d4k does not know too.

    Raises:
        DataError: it lacks something, or a value is of the wrong type or out of range.
    """
    missing = [name for name in NEEDED if name not in recipe]
    if missing:
        raise DataError(f"the recipe in {path} has no {', '.join(missing)}: d4k generate did not write it", path)
    checked = read_record(RecipeRecord, recipe, f"the recipe in {path}", DataError)
    then, now = checked.versions, versions()
    other = [f"{name} {then[name]} (here {now[name]})" for name in now if then.get(name, now[name]) != now[name]]
    if other:
        warnings.warn(f"{path} was generated with {', '.join(other)}: its last bits may not repeat", stacklevel=2)
    return dict(recipe)


@cache
def versions() -> dict[str, str]:
    """Of d4k, diffusers and torch, as a recipe keeps them."""
    return {"d4k": __version__, "diffusers": metadata.version("diffusers"), "torch": metadata.version("torch")}
