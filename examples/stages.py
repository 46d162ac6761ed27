"""Large pictures from a small model, without training: direct, Lanczos, stages, and stages with guidance.

The two tiny models know twelve photographs at 256 pixels. Each caption is sampled at twice and at four times that side
in every way, with several seeds, and the pictures are measured against the photographs. Every picture is a file with
its figures beside it, so that the same command goes on where it was stopped. Tables, a contact sheet for each model and
size, and all numbers are left in the folder.

python examples/stages.py [FOLDER] [--model tiny-sd3] [--sizes 512 1024] [--seeds 3] [--page docs/stages-results.md]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
from attrs import frozen
from stages_pictures import GUIDED, LANCZOS, METHODS, POSSIBLE, STAGES, Plan, Study, Work, measured, photograph
from stages_report import pilot_table, report

from d4k import ConfigError
from d4k.files import write_json
from d4k_tiny.photos import PHOTOS

MODELS = ("tiny-sd3", "tiny-flux")
TRIED = (LANCZOS, STAGES, GUIDED)
"""In a pilot; sampling directly has no restart."""
PILOT_SEED = 1000
"""None of those that are reported."""


@frozen
class Extent:
    """How many pictures are made.

    Args:
        sizes: pixels a side: twice that of the first stage, four times, and so on.
        seeds: of each caption.
        captions: how many, from the first.
        methods: what is compared.
    """

    sizes: tuple[int, ...] = (512, 1024)
    seeds: tuple[int, ...] = (0, 1, 2)
    captions: int = len(PHOTOS)
    methods: tuple[str, ...] = METHODS


def all_work(extent: Extent) -> list[Work]:
    """What is to be made; a seed is finished before the next is begun."""
    pictures = [
        Work(method, size, photo, seed)
        for seed in extent.seeds
        for size in extent.sizes
        for photo in range(extent.captions)
        for method in extent.methods
    ]
    return [Work(POSSIBLE, size, photo, -1) for size in extent.sizes for photo in range(extent.captions)] + pictures


def run(study: Study, extent: Extent) -> None:
    """Make and measure what is not there yet, and say how long it will take.

    Raises:
        ConfigError: a size is not the first stage doubled, or the folder holds other pictures.
    """
    reached = {study.small * 2**times for times in range(1, 8)}
    if not set(extent.sizes) <= reached:
        raise ConfigError(f"sizes must be {study.small} pixels doubled, once or more; got {list(extent.sizes)}")
    study.claim()
    todo = [work for work in all_work(extent) if not study.figures(work).is_file()]
    costs = [study.cost(work) for work in todo]
    begun, done = time.monotonic(), 0.0
    for number, (work, cost) in enumerate(zip(todo, costs, strict=True), 1):
        write_json(study.figures(work), measured(study.picture(work), photograph(work.photo, work.size)))
        done += cost
        left = (time.monotonic() - begun) * (sum(costs) / done - 1) / 60
        said = f"{study.plan.model} {work.size} {work.method}, {PHOTOS[work.photo].id}, seed {work.seed}"
        print(f"{number}/{len(todo)} {said}: {left:.1f} minutes left", flush=True)


def pilot(folder: Path, attempts: Iterable[Plan], extent: Extent) -> None:
    """Try plans on one seed that is not reported, in order to choose one of them."""
    for plan in attempts:
        name = f"restart-{plan.restart:g}-alignment-{plan.alignment:g}-cutoff-{plan.cutoff:g}"
        run(Study(folder / plan.model / name, plan), attrs.evolve(extent, seeds=(PILOT_SEED,), methods=TRIED))


def main(
    folder: Path, tried: Sequence[Plan], extent: Extent, restarts: Sequence[float] = (), page: Path | None = None
) -> str:
    """Do what is not done yet, and leave tables and sheets of all that is finished in the folder.

    Args:
        folder: of the pictures, of this run and others.
        tried: one plan a model.
        extent: how many pictures.
        restarts: to be tried in a pilot, in place of the run.
        page: of the documentation, whose tables are replaced.

    Returns:
        The tables in Markdown.
    """
    with warnings.catch_warnings(action="ignore"):  # that pictures are larger than those trained is the point
        for plan in tried:
            if restarts:
                pilot(folder / "pilot", (attrs.evolve(plan, restart=restart) for restart in restarts), extent)
            else:
                run(Study(folder / plan.model, plan), extent)
    before = pilot_table(folder / "pilot", extent.captions, TRIED)
    text = before if restarts else report(folder, extent.captions, before, page)
    print(text)
    return text


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("stages"), help="of the pictures; gone on with")
    parser.add_argument("--model", action="append", choices=MODELS, help="may be repeated; both when left out")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="pixels a side")
    parser.add_argument("--seeds", type=int, default=3, help="of each caption")
    parser.add_argument("--captions", type=int, default=len(PHOTOS), help="from the first; for a trial")
    parser.add_argument("--pilot", type=float, nargs="+", default=[], help="restarts to try on a seed of its own")
    parser.add_argument("--page", type=Path, help="Markdown page whose tables are replaced")
    for option in attrs.fields(Plan)[1:]:
        kind = str if option.name == "positions" else int if option.name in ("small", "steps") else float
        parser.add_argument(f"--{option.name}", type=kind, default=option.default, help=f"default: {option.default}")
    return parser.parse_args(arguments)


def plans(chosen: argparse.Namespace) -> list[Plan]:
    """One for each model that is asked for."""
    settings = {option.name: getattr(chosen, option.name) for option in attrs.fields(Plan)[1:]}
    return [Plan(model, **settings) for model in chosen.model or MODELS]


if __name__ == "__main__":
    asked = options()
    sought = Extent(tuple(sorted(asked.sizes)), tuple(range(asked.seeds)), asked.captions)
    main(asked.folder, plans(asked), sought, asked.pilot, asked.page)
