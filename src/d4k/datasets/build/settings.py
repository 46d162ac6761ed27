"""The settings of a build: frozen, whose fields are the keys of its TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen

from d4k.config import flag, from_mapping, number, one_of, optional, text, whole
from d4k.datasets.duplicates.groups import DISTANCE
from d4k.errors import ConfigError, did_you_mean
from d4k.images.read import MAX_PIXELS

__all__ = ["DEFAULT_FILTERS", "BuildSettings", "read_settings"]

DEFAULT_FILTERS = ("size", "detail", "noise", "blur", "jpeg", "upscaled", "border")
"""Filters that are used unless they are switched off, in the order in which they are asked."""


def _is_filters(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if not isinstance(value, Mapping):
        raise ConfigError(f"filters must be a table of filters, got {value!r}")
    for name, options in value.items():
        if options is not False and not isinstance(options, Mapping):
            raise ConfigError(f"filters.{name} must be a table of options, or false for none, got {options!r}")


def _is_eval(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    whole_or_share = not isinstance(value, bool) and isinstance(value, int | float) and value >= 0
    if not whole_or_share or (value >= 1 and value != int(value)):
        raise ConfigError(f"eval must be a count of pictures, or a share from 0 to below 1, got {value!r}")


@frozen
class BuildSettings:
    """What decides a dataset, beside its sources.

    Args:
        filters: Options of each filter by its name, or `false` for a filter that is not used. Those used by default
            need not be named.
        default_filters: Uses the filters `size`, `detail`, `noise`, `blur`, `jpeg`, `upscaled` and `border`. With
            `false`, only those in `filters` are used.
        duplicate_distance: Bits of 80 in which the fingerprints of two pictures may differ that count as the same.
        keep_duplicates: Keeps all pictures that are the same to the eye; they share a split.
        eval: Pictures of the split `eval`: a count, or a share below 1.
        seed: Seed of the choice of these.
        licence: Licence of the pictures whose source names none.
        no_licence: Where pictures without a licence go: `apart` into the folder `kept-apart`, `keep` into the dataset.
        place: How pictures come into the dataset: `link` for hard links, and copies where the file system has none, or
            `copy`.
        max_pixels: A picture of more pixels counts as broken.
        max_download_mb: A file behind a URL that has more megabytes is not downloaded.
    """

    filters: Mapping[str, Any] = field(factory=dict, validator=_is_filters)
    default_filters: bool = field(default=True, validator=flag())
    duplicate_distance: int = field(default=DISTANCE, validator=whole(0, 80))
    keep_duplicates: bool = field(default=False, validator=flag())
    eval: float = field(default=0, validator=_is_eval)
    seed: int = field(default=0, validator=whole(0))
    licence: str | None = field(default=None, validator=optional(text()))
    no_licence: Literal["apart", "keep"] = field(default="apart", validator=one_of("apart", "keep"))
    place: Literal["link", "copy"] = field(default="link", validator=one_of("link", "copy"))
    max_pixels: int = field(default=MAX_PIXELS, validator=whole(1))
    max_download_mb: float = field(default=500.0, validator=number(0, above=True))

    @property
    def used(self) -> dict[str, dict[str, Any]]:
        """The filters in the order in which they are asked, with their options.

        >>> list(BuildSettings(filters={"blur": False, "glcm": {}}).used)
        ['size', 'detail', 'noise', 'jpeg', 'upscaled', 'border', 'glcm']
        """
        named = {**{name: {} for name in (DEFAULT_FILTERS if self.default_filters else ())}, **self.filters}
        return {name: dict(options) for name, options in named.items() if options is not False}


def read_settings(data: Mapping[str, Any], settings: Mapping[str, Any]) -> BuildSettings:
    """Settings from a file, and changes to them.

    Args:
        data: tables of a TOML file.
        settings: what is set beside it. A table that is not a setting of the build is one of options of the filter of
            that name, which must be in use.

    Raises:
        ConfigError: a key is unknown, or its value is not allowed.

    >>> read_settings({"eval": 0.1}, {"size": {"min_side": 64}}).used["size"]
    {'min_side': 64}
    """
    known = [f.name for f in attrs.fields(BuildSettings)]
    own = {key: value for key, value in settings.items() if key in known}
    base = from_mapping(BuildSettings, {**data, **own})
    filters = {name: options if options is False else dict(options) for name, options in base.filters.items()}
    for name, options in settings.items():
        if name in known:
            continue
        if not isinstance(options, Mapping):
            raise ConfigError(f"unknown key '{name}'{did_you_mean(name, known)} Known: {', '.join(known)}.")
        if name not in base.used:
            raise ConfigError(
                f"filter '{name}' is not in use{did_you_mean(name, base.used)} In use: {', '.join(base.used) or 'none'}"
            )
        filters[name] = {**(filters.get(name) or {}), **options}
    return attrs.evolve(base, filters=filters)
