"""A benchmark from its settings to its scores. Killed at any moment and run again, it goes on where it was.

DIR/
  manifest.json              what the figures follow from, with hashes
  photographs/               the pictures of the dataset, cut to the size, and their scores.json
  models/<name>/             pictures/, with their recipes and index.jsonl; scores.json
  models/<name>-upscaled/    own-size/, as the model samples them at its own size; pictures/, enlarged; scores.json
  rows/                      what was measured of every picture
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from d4k.benchmark.begin import Begun, beginning
from d4k.benchmark.manifest import read_manifest, record_pictures
from d4k.benchmark.measuring import measure_photographs, measure_row
from d4k.benchmark.photographs import cut_photographs
from d4k.benchmark.plan import PHOTOGRAPHS, Plan, make_plan
from d4k.benchmark.progress import Work, looks
from d4k.benchmark.sampling import Enlarging, LazyModel, enlarge_pictures, sample_pictures
from d4k.benchmark.settings import BenchmarkSettings
from d4k.errors import ConfigError
from d4k.evaluation import Evaluation, read_evaluation
from d4k.machine import choose_device
from d4k.processes import Processes, StoppedElsewhereError, check_found, first_process, meeting, process_count
from d4k.sampling import name_files

__all__ = ["BenchmarkResult", "run_benchmark"]


@frozen
class BenchmarkResult:
    """What a benchmark leaves.

    Args:
        folder: of the benchmark.
        folders: of each row, with its `scores.json`: the photographs, then the models in the order given, each
            followed by its upscaled pictures.
        evaluations: likewise.
        manifest: its content.
    """

    folder: Path
    folders: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...]
    manifest: Mapping[str, Any]


def run_benchmark(
    output: str | Path, settings: BenchmarkSettings, *, say: Callable[[str], object] = print
) -> BenchmarkResult:
    """Sample, enlarge and measure what is missing; under a launcher every process does its share.

    Args:
        output: a folder that is new, empty, or of an earlier call with the same settings.
        settings: what to do.
        say: receives what happens, a line at a time, in the first process.

    Raises:
        UnknownNameError: there is no such model, dataset, metric or upscaler.
        ConfigError: an option does not suit, a model cannot sample the size, or no metric can be measured.
        DataError: the dataset cannot be read, is empty, or a picture of it cannot be used.
        CheckpointError: a model, or a metric that was named, cannot be had.
        OutputError: the folder holds something else, or a benchmark of other settings, or cannot be written.
    """
    output = Path(output)
    with _processes(settings) as processes, ExitStack() as stack:
        with processes.together():
            plan = make_plan(settings)
        first = None
        with processes.together():
            if processes.first:
                first = stack.enter_context(beginning(output, plan, say))
        begun: Begun = processes.tell(first)
        with _work(output, plan, processes) as work:
            _make_pictures(output, plan, begun, processes, work)
            folders = _measure(output, plan, begun, work)
        with processes.together():
            if processes.first:
                record_pictures(output, _pictures(output, folders))
        evaluations = tuple(read_evaluation(folder) for folder in folders)
        return BenchmarkResult(output, tuple(folders), evaluations, read_manifest(output) or {})


@contextmanager
def _processes(settings: BenchmarkSettings) -> Iterator[Processes]:
    check_found()
    with ExitStack() as stack:
        if process_count() > 1:
            stack.enter_context(meeting(_device(settings)))
        yield Processes()


def _device(settings: BenchmarkSettings) -> torch.device:
    try:
        return choose_device(settings.loading.device)
    except ConfigError as error:
        if first_process():
            raise
        raise StoppedElsewhereError(f"the first process says the same: {error}") from error


def _work(output: Path, plan: Plan, processes: Processes) -> Work:
    """The bar over what this process has yet to do."""
    share, whole = slice(processes.rank, None, processes.count), looks(1, plan.width, plan.height)

    def missing(folder: Path) -> int:
        return sum(not target.file.exists() for target in name_files(folder, plan.jobs)[share])

    total = whole * (len(plan.jobs[share]) + len(plan.jobs) * (1 + len(plan.rows)))  # cutting, and measuring
    for row in plan.rows:
        one = looks(row.settings.steps, row.settings.width, row.settings.height)
        total += one * missing(row.sampled(output)) + (whole * missing(row.pictures(output)) if row.upscaled else 0)
    return Work(total, quiet=not processes.first)


def _make_pictures(output: Path, plan: Plan, begun: Begun, processes: Processes, work: Work) -> None:
    """This process's share of all pictures; ends when all processes have made theirs."""
    share = slice(processes.rank, None, processes.count)
    work.begin(PHOTOGRAPHS, plan.width, plan.height)
    photographs = list(zip(begun.photographs, plan.samples, strict=True))[share]
    cut_photographs(output / PHOTOGRAPHS, photographs, plan.width, plan.height, work.seen)
    device, settings = choose_device(plan.settings.loading.device), plan.settings
    how = Enlarging(settings.upscaler, settings.upscaler_options, plan.width, plan.height, device, plan.upscaling)
    for entrant in plan.entrants:
        rows, model = [row for row in plan.rows if row.entrant is entrant], LazyModel(entrant.ref, entrant.loading)
        for row in rows:
            work.begin(row.name, row.settings.width, row.settings.height)
            sample_pictures(row.sampled(output), entrant, row.settings, plan.jobs, model, work.stepped)
        model.free()
        for row in (row for row in rows if row.upscaled):
            work.begin(row.name, plan.width, plan.height)
            enlarge_pictures(row.pictures(output), entrant, row.settings, plan.jobs, how, work.stepped)
    with processes.together():  # each comes here when its share is done
        pass


def _measure(output: Path, plan: Plan, begun: Begun, work: Work) -> list[Path]:
    """Measure every row; returns their folders. Processes share the pictures, and the first one scores."""
    work.begin("measuring", plan.width, plan.height)
    folders = [output / PHOTOGRAPHS] if measure_photographs(output, plan, begun) else []
    work.seen(len(plan.jobs))
    for row in plan.rows:
        measure_row(output, plan, begun, row)
        folders.append(row.folder(output))
        work.seen(len(plan.jobs))
    return folders


def _pictures(output: Path, folders: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of every picture that was measured, by its path below the folder of the benchmark."""
    return {
        (folder / picture.file).relative_to(output).as_posix(): picture.sha256
        for folder in folders
        for picture in read_evaluation(folder).pictures
    }
