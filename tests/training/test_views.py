"""How pictures are cut, and when a run has a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d4k import Sample
from d4k.errors import ConfigError
from d4k.images import Crop
from d4k.training import View, cache_folder, choose_pictures
from d4k.training.data.views import captions, held_out_views, trained_view, views

Config = Callable[..., Any]


def known(*ids: str) -> list[Sample]:
    return [Sample(name, f"a {name[0]}", Path(name), (40, 40)) for name in ids]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({}, "d4k-cache"),
        ({"cache": "off"}, None),
        ({"cache": "off", "crop": "random", "crops": 2}, None),
        ({"cache": "some/where"}, Path("some/where")),
        ({"crop": "random"}, None),
        ({"flip": True}, None),
        ({"flip": True, "crops": 2}, "d4k-cache"),
        ({"crop": "random", "crops": 2, "cache": "some/where"}, Path("some/where")),
    ],
)
def test_a_run_has_a_cache_where_views_come_back(
    run_config: Config, tmp_path: Path, data: dict[str, Any], wanted: Any
) -> None:
    """By itself it lies beside the folder of the run, so that runs share it."""
    assert cache_folder(run_config(data={"cache": "auto", **data})) == (
        tmp_path / wanted if isinstance(wanted, str) else wanted
    )


@pytest.mark.parametrize(
    ("data", "what"), [({"crop": "random"}, r"data\.crop = 'random'"), ({"flip": True}, r"data\.flip = true")]
)
def test_a_named_cache_of_endless_cuts_is_refused(run_config: Config, data: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{what} cuts .*: set data\.crops = K"):
        cache_folder(run_config(data={**data, "cache": "some/where"}))


def test_a_picture_has_so_many_cuts_as_are_asked_for(backbone: Any, run_config: Config) -> None:
    """One after the other, then again; the same with another seed, and wherever the picture is in its dataset."""
    data = {"crop": "random", "flip": True, "crops": 3}
    config, other = run_config(data=data, seed=0), run_config(data=data, seed=1)
    chosen = choose_pictures(known("cat", "dog"), backbone, config)
    moved = choose_pictures(known("new", "cat", "dog"), backbone, config)
    found = [trained_view(chosen, chosen.buckets[0], 1, epoch, config) for epoch in range(6)]
    assert found[:3] == found[3:]
    assert len(set(found)) == 3
    assert {view.crop for view in found} == {Crop(16, 16, position="random", flip=True)}
    seeds = [view.seed for view in found]
    assert [trained_view(moved, moved.buckets[0], 2, epoch, other).seed for epoch in range(6)] == seeds
    assert trained_view(chosen, chosen.buckets[0], 0, 0, config).seed not in seeds


def test_crops_without_random_cuts_are_refused(run_config: Config) -> None:
    with pytest.raises(ConfigError, match="crops has no effect on pictures that are all cut in their middle"):
        run_config(data={"crops": 3})


def test_centred_cuts_are_one_and_endless_ones_are_of_the_run(backbone: Any, run_config: Config) -> None:
    config = run_config()
    chosen = choose_pictures(known("cat", "dog"), backbone, config)
    assert {trained_view(chosen, chosen.buckets[0], 1, epoch, config) for epoch in range(4)} == {View(1, Crop(16, 16))}
    endless = [run_config(data={"crop": "random"}, seed=seed) for seed in (0, 1)]
    cuts = [trained_view(chosen, chosen.buckets[0], 1, epoch, c).seed for epoch in range(4) for c in endless]
    assert len(set(cuts)) == 8


def test_the_views_of_a_run_are_those_that_it_asks_for(backbone: Any, run_config: Config) -> None:
    """Each of them once; pictures that are held out in their middle alone."""
    config = run_config(data={"crop": "random", "crops": 3}, validation={"holdout": 2})
    chosen = choose_pictures(known("cat", "dog", "cow", "hen"), backbone, config)
    (bucket,) = chosen.buckets
    asked = {trained_view(chosen, bucket, index, epoch, config) for index in bucket.pictures for epoch in range(9)}
    held = held_out_views(chosen)
    found = list(views(chosen, config))
    assert len(found) == len(set(found)) == 2 * 3 + 2
    assert set(found) == asked | set(held)
    assert held == [View(index, Crop(16, 16)) for index in bucket.held_out]
    plain = run_config(validation={"holdout": 2})
    assert [view.index for view in views(chosen, plain)] == [*bucket.pictures, *bucket.held_out]


def test_the_captions_of_a_run_are_each_named_once(backbone: Any, run_config: Config) -> None:
    """The empty one where captions are dropped."""
    config = run_config()
    chosen = choose_pictures(known("cat", "dog", "cow"), backbone, config)
    assert captions(chosen, config) == ["a c", "a d"]
    assert captions(chosen, run_config(training={"caption_dropout": 0.1})) == ["a c", "a d", ""]
