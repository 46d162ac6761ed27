"""`--recipe`: what a picture was generated with, and what repeating it would fetch from the Hub."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.pipeline import Pipeline

__all__ = [
    "allow_downloads",
    "as_options",
    "on_terminal",
    "read",
    "recorded_adapters",
    "recorded_options",
    "unless_given",
    "warn_of_changes",
    "warn_of_upscaler",
]

EACH = ("steps", "guidance", "shift")
JOINING = ("restart", "alignment", "cutoff", "upscaler")
NOT_OPTIONS = ("adapters", "options", "upscaler_options", "earlier", "prompt")
"""What a recipe holds in another form than the options of these names do."""


def read(path: Path) -> dict[str, Any]:
    """The recipe of a picture."""
    from d4k.images import read_recipe
    from d4k.sampling import check_recipe

    return check_recipe(read_recipe(path), path)


def unless_given(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a command's options, with what the recipe says where the command line says nothing."""
    given = click.get_current_context().get_parameter_source
    return {
        name: recipe[name] if name in recipe and given(name) is ParameterSource.DEFAULT else value
        for name, value in values.items()
    }


def as_options(recipe: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a recipe says, as the options of `d4k generate` say it, beside what the command line says itself.

    Stages that the command line gives stand in place of the recorded ones: what was for each of these is then that of
    the last, and the picture keeps its aspect.

    Args:
        recipe: checked.
        path: of the picture.

    Raises:
        ConfigError: the picture that it was made from is not there, or has changed.
    """
    from d4k.sampling import check_source, settings_from

    if not _given("image"):
        check_source(recipe, path)
    if "guide" in recipe:
        warnings.warn(
            f"{path} was guided by {recipe['guide']}, which no option stands for: it will differ", stacklevel=2
        )
    known = {name: value for name, value in recipe.items() if name not in NOT_OPTIONS}
    if "earlier" in recipe or "image_sha256" in recipe:
        settings = settings_from(recipe)  # a default is not in the recipe, and wins over what a model or preset says
        known |= {name: getattr(settings, name) for name in JOINING}
    if _given("stages"):
        known |= dict(zip(("width", "height"), _last_size(recipe), strict=True))
    elif "earlier" in recipe:
        stages = settings_from(recipe).stages
        known["stages"] = ",".join(f"{stage.width}x{stage.height}" for stage in stages)
        known |= {name: [getattr(stage, name) for stage in stages] for name in EACH}
        joined = stages if "image_sha256" in recipe else stages[1:]
        known["restart"] = [stage.restart for stage in joined]
        if _given("image") and "image_sha256" not in recipe:  # the first stage begins with a picture now, too
            known["restart"] = [stages[1].restart, *known["restart"]]
    if _given("strength"):
        known.pop("restart", None)
    return known | ({"image": Path(known["image"])} if "image" in known else {})


def _last_size(recipe: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Width and height of the picture that `--stages` ends with, at the aspect of a recipe; None is left to it."""
    from d4k.sampling import is_auto, read_size

    stages, own = click.get_current_context().params["stages"], (recipe["width"], recipe["height"])
    if is_auto(stages):
        return own
    return (None, None) if _given("width") or _given("height") else read_size(stages.split(",")[-1], own, 1)


def recorded_options(recipe: Mapping[str, Any], upscaler: str | None) -> dict[str, Any]:
    """The options of the upscaler in a recipe, where it is the one in use."""
    return recipe.get("upscaler_options", {}) if upscaler == recipe.get("upscaler") else {}


def warn_of_upscaler(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Say that the upscaler of a recipe is not what it was, such as one with other weights."""
    from d4k.images.upscale import upscaler_settings
    from d4k.plugins import create

    if "upscaler_settings" not in recipe or given.get("upscaler") != recipe.get("upscaler"):
        return
    upscaler = create("upscaler", given["upscaler"], **given.get("upscaler_options", {}))
    if upscaler_settings(upscaler) != recipe["upscaler_settings"]:
        warnings.warn(
            f"the recipe was made with another version of the upscaler '{given['upscaler']}': the picture will differ",
            stacklevel=2,
        )


def _given(name: str) -> bool:
    """Whether the command line says a value itself."""
    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


def recorded_adapters(recorded: Iterable[Mapping[str, Any]]) -> dict[str | Path, float]:
    """The adapters of a recipe; one that was on several times counts the sum."""
    sources = {used["sha256"]: used["source"] for used in recorded}
    scales: dict[str | Path, float] = dict.fromkeys(sources.values(), 0.0)
    for used in recorded:
        scales[sources[used["sha256"]]] += used["scale"]
    return scales


def warn_of_changes(pipe: Pipeline, recorded: Iterable[Mapping[str, Any]]) -> None:
    """Say which adapters of a recipe are not what they were."""
    known = {used["sha256"] for used in recorded}
    changed = [used.source for used in pipe.adapters.values() if known and used.sha256 not in known]
    if changed:
        warnings.warn(
            f"the recipe was made with another version of {', '.join(changed)}: the picture will differ", stacklevel=2
        )


def allow_downloads(path: Path, recipe: Mapping[str, Any], *, allowed: bool) -> None:
    """Ask before what a recipe names is fetched from the Hub: the recipe may be somebody else's.

    Nothing is asked about what the command line names itself.

    Args:
        path: of the picture.
        recipe: in it.
        allowed: `--allow-download` was given.

    Raises:
        ConfigError: something would be fetched, and the user does not agree or cannot be asked.
    """
    named = {**recipe, "adapters": [used["source"] for used in recipe.get("adapters", [])]}
    given = click.get_current_context().get_parameter_source
    kinds = ("model", "revision", "transformer", "adapters")
    theirs = {kind: named[kind] for kind in kinds if kind in named and given(kind) is ParameterSource.DEFAULT}
    missing = [] if allowed else _missing(theirs)
    if not missing:
        return
    said = f"the recipe in {path} needs {' and '.join(missing)}, which would be downloaded from the Hugging Face Hub"
    if on_terminal() and click.confirm(f"{said} with your account. Download?", err=True):
        return
    raise ConfigError(f"{said}; pass --allow-download if you trust it")


def on_terminal() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty()


def _missing(theirs: Mapping[str, Any]) -> list[str]:
    """What would be fetched, in words."""
    from d4k.models import ModelRef, missing_from_cache

    adapters = dict.fromkeys(map(str, theirs.get("adapters", ())), 1.0)
    ref = ModelRef(theirs.get("model", ""), theirs.get("revision"), None, theirs.get("transformer"), adapters)
    kinds: dict[str | None, str] = {ref.transformer: "the denoiser"}
    kinds |= dict.fromkeys(adapters, "the adapter")
    return [f"{kinds.get(name, 'the model')} '{name}'" for name in missing_from_cache(ref)]
