"""The recipe in a picture: read, checked, and which versions wrote it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from d4k import __version__
from d4k.errors import DataError
from d4k.records import RecipeRecord, read_record

__all__ = ["NEEDED", "changes", "check_recipe", "shown_changes", "versions"]

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
    if "model" in missing and "upscaler" in recipe:
        raise DataError(
            f"{path} was enlarged without a model, from {recipe.get('image')}: repeat it with d4k upscale --no-refine, "
            f"--size {recipe.get('width')}x{recipe.get('height')} and --upscaler {recipe['upscaler']}",
            path,
        )
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


def changes(before: Mapping[str, Any], now: Mapping[str, Any], *, versions: bool = False) -> list[str]:
    """Names of what makes two pictures differ.

    A picture that was begun with counts by its content, wherever it lies.

    Args:
        before: a recipe that was read.
        now: one that was made.
        versions: other versions of the packages count, too.
    """
    ignored = set() if versions else {"versions"}
    if before.get("image_sha256") == now.get("image_sha256"):
        ignored.add("image")
    names = [name for name in {**now, **before} if name not in ignored and before.get(name) != now.get(name)]
    plain = json.loads(json.dumps({name: now.get(name) for name in names}))  # JSON has lists only, and text as keys
    return [name for name in names if before.get(name) != plain[name]]


def shown_changes(names: Sequence[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first of what differs, in words.

    >>> shown_changes(["earlier"], {"earlier": [{"width": 8, "height": 8, "steps": 2}]}, {})
    'stages before it was 8x8, is none'
    """
    return ", ".join(
        _shown_stages(before.get(name) or (), now.get(name) or ())
        if name == "earlier"
        else f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in names[:3]
    )


def _shown_stages(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str:
    """How the stages before the last differ: in their sizes, or else in the settings of the first that differs."""
    sizes = [", ".join(f"{one['width']}x{one['height']}" for one in stages) or "none" for stages in (before, now)]
    if sizes[0] != sizes[1]:
        return f"stages before it was {sizes[0]}, is {sizes[1]}"
    was, is_now = next(pair for pair in zip(before, now, strict=True) if dict(pair[0]) != dict(pair[1]))
    said = shown_changes([name for name in is_now if was.get(name) != is_now[name]], was, is_now)
    return f"stage {is_now['width']}x{is_now['height']}: {said}"
