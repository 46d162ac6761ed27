"""Where pictures are written: a folder with an index, or one file, which is a folder of one without an index.

A folder can be gone on with after an interruption, and the processes of one launch share it: each generates every n-th
picture.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen
from PIL import Image

from d4k.errors import ConfigError, OutputError
from d4k.images import read_recipe, save_picture
from d4k.locks import output_errors
from d4k.sampling.claim import Claim
from d4k.sampling.index import Index, line_of
from d4k.sampling.jobs import Job, Target, name_files
from d4k.sampling.kept import Course, stage_files, sweep
from d4k.sampling.loop import SamplingStep
from d4k.sampling.output import check_output, is_file, made, new_file, visible
from d4k.sampling.progress import Planned, Progress, counting
from d4k.sampling.recipe import changes, shown_changes, versions
from d4k.upstream import get_cpu_distributed_information

__all__ = ["Generate", "Recipe", "generate_into"]

LEFTOVER = re.compile(r"\.(\d{4,}-[a-z0-9-]+-seed\d+-\w{8}\.png|index-\w{8}\.jsonl)")
"""Names of files that a process was writing when it was killed."""

Recipe = Callable[[Job], Mapping[str, Any]]
Generate = Callable[[Mapping[str, Any], Course], Image.Image]
Plan = Callable[[Mapping[str, Any]], Sequence[Planned]]
Keep = Callable[[Image.Image, Path, Mapping[str, Any]], None]
Place = Iterator[tuple[Sequence[Target], Keep]]


@frozen
class Share:
    """What one process of a launch does.

    Args:
        targets: all pictures.
        rank: of the process, from 0.
        processes: of the launch.
        recipe: all that makes a job's picture what it is.
    """

    targets: Sequence[Target]
    rank: int
    processes: int
    recipe: Recipe

    @property
    def own(self) -> Sequence[Target]:
        """The pictures of this process."""
        return self.targets[self.rank :: self.processes]

    @property
    def launch(self) -> str:
        """What the processes of this launch have in common: their number, and every recipe."""
        if self.processes == 1:
            return "alone"
        digest = hashlib.sha256()
        for target in self.targets:
            digest.update(line_of(target.file.name, self.recipe(target.job)).encode())
        return f"{digest.hexdigest()[:12]}-{self.processes}"


def generate_into(
    output: Path,
    jobs: Sequence[Job],
    recipe: Recipe,
    generate: Generate,
    *,
    plan: Plan | None = None,
    keep_stages: bool = False,
    on_step: Callable[[SamplingStep], None] | None = None,
    on_picture: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Generate what is missing of this process's share. Nothing else in d4k writes generated pictures.

    Args:
        output: a folder that is new, empty or of an earlier call, or one new .png, .jpg or .webp file.
        jobs: all pictures, each with its seed.
        recipe: from a job to all that makes its picture what it is; asked for anew whenever it is needed, so that the
            recipes of many pictures need not be held.
        generate: from a recipe, and what is to be called after each of its steps and keeps its finished stages, to a
            picture. The same recipe is saved with the picture.
        plan: from a recipe to its stages, for the time that is left; None tells it from the recipe.
        keep_stages: leave the finished stages beside the pictures.
        on_step: called after every step.
        on_picture: called with the path of each file after it was written.

    Returns:
        The files of the share, in the order of the jobs.

    Raises:
        ConfigError: there are no jobs, or several for one file.
        OutputError: the folder holds other pictures or some of other settings, another d4k is writing into it, the
            file exists, or nothing can be written there.
    """
    if not jobs:
        raise ConfigError("no prompt was given")
    process = get_cpu_distributed_information()  # of any launcher, not of CPUs only
    single = is_file(output, len(jobs))
    targets = [Target(output, jobs[0])] if single else name_files(output, jobs)
    share = Share(targets, process.rank, process.world_size, recipe)
    if not share.own:
        return []
    check_output(output, len(jobs))
    with (_file if single else _folder)(output, share) as (missing, keep):
        planned, first = plan or _plan, missing[:1]
        begun = planned(share.recipe(first[0].job)) if first else ()
        with Progress(len(missing), begun, on_step, quiet=share.rank > 0) as progress:
            for target in missing:
                settings = share.recipe(target.job)
                stages = stage_files(target.file, single=single, keep=keep_stages)
                stages.check()
                with progress.picture(planned(settings)):
                    keep(generate(settings, Course(progress, stages)), target.file, settings)
                    stages.finish()
                if on_picture is not None:
                    on_picture(target.file)
    return [target.file for target in share.own]


def _plan(recipe: Mapping[str, Any]) -> Sequence[Planned]:
    """The only stage of a recipe, where it has one."""
    return [Planned(recipe["width"], recipe["height"], recipe["steps"])] if recipe.get("steps") else []


@contextmanager
def _file(file: Path, share: Share) -> Place:
    """Hold the name of a file that does not exist; yields what is missing and how to keep a picture."""
    with new_file(file, share.recipe(share.targets[0].job)) as write:
        yield share.targets, lambda picture, _, recipe: write(picture, recipe)


@contextmanager
def _folder(folder: Path, share: Share) -> Place:
    """Claim a folder, check what is in it, and keep its index; yields what is missing and how to keep a picture."""
    index = Index(folder, {target.file.name: place for place, target in enumerate(share.targets)})
    with made(folder), Claim(folder, share.launch, share.rank) as claim:

        def keep(picture: Image.Image, file: Path, recipe: Mapping[str, Any]) -> None:
            save_picture(picture, file, recipe=recipe)
            with claim.alone():
                index.append(file.name, recipe)

        with claim.alone(), output_errors(folder):
            if claim.first:
                _remove_leftovers(folder)
            index.begin()
            present, listed = _present(folder, index), index.read()
        verified = _verified(share, index, present, listed)
        _tidy(claim, index, {target.file.name for target in share.own}, verified)
        sweep(folder, verified, index.order)
        try:
            yield [target for target in share.own if target.file.name not in verified], keep
        finally:
            _tidy(claim, index)


def _tidy(claim: Claim, index: Index, own: Collection[str] = (), verified: Mapping[str, str] | None = None) -> None:
    """Bring the index into order: without pictures that are gone, and of `own` with those that were verified."""
    with claim.alone(), output_errors(index.path.parent):
        present = visible(index.path.parent)
        lines = {name: line for name, line in index.read().items() if name in present and name not in own}
        index.tidy({**lines, **(verified or {})})


def _remove_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _present(folder: Path, index: Index) -> dict[str, os.DirEntry[str]]:
    """The pictures of a folder; those of other jobs are an error."""
    present = {name: entry for name, entry in visible(folder).items() if name.lower().endswith(".png")}
    strange = min(present.keys() - index.order.keys(), default=None)
    if strange is not None:
        raise OutputError(
            f"output folder {folder} holds pictures that are not of these prompts and seeds, such as {strange}; "
            "name another folder, or give the prompts it was begun with"
        )
    return present


def _verified(
    share: Share, index: Index, present: Mapping[str, os.DirEntry[str]], listed: Mapping[str, str]
) -> dict[str, str]:
    """Name -> line in the index of this process's pictures that are there; one of other settings is an error.

    A line of the index is believed unless the picture was written after the index was. Other pictures are opened.
    """
    written = index.path.stat().st_mtime_ns
    verified, befores, here = {}, Counter[str](), versions()
    for target in counting(share.own, "checking pictures", "picture", quiet=share.rank > 0):
        name = target.file.name
        if name not in present:
            continue
        now = share.recipe(target.job)
        known = name in listed and present[name].stat().st_mtime_ns <= written
        before = index.recipe(listed[name]) if known else read_recipe(target.file)
        if known and changes(before, now):  # the index may have been edited; what is in the picture counts
            known, before = False, read_recipe(target.file)
        _refuse_changed(target.file, before, now)
        befores.update(_other_versions(before, here))
        verified[name] = listed[name] if known else line_of(name, before)
    for said, count in befores.items():
        warnings.warn(
            f"{count} of the pictures that are there were generated with {said}: their last bits may not repeat",
            stacklevel=2,
        )
    return verified


def _refuse_changed(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if changed := changes(before, now):
        said = shown_changes(changed, before, now)
        raise OutputError(
            f"{file} was generated with other settings: {said}; name another folder, or give the settings that it was "
            "begun with (--recipe reads them from a picture)"
        )


def _other_versions(recipe: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    then = recipe.get("versions")
    if not isinstance(then, dict):
        return []
    return [f"{name} {then[name]} (here {now})" for name, now in here.items() if then.get(name, now) != now]
