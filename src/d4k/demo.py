"""The paper's story in miniature: a model beyond its size, before and after fine-tuning there.

`tiny-sd3` was trained at 256 pixels. Asked for more it falls apart, as SD3 and Flux do at 4K. What can be had without
training is shown first: the picture of its own size, enlarged, re-noised and gone on with (`d4k generate --stages`).
Then it is fine-tuned at the larger size with the wavelet loss, and the same prompts and seeds are sampled again: a few
times while it trains, so that a person watches it improve, and in the end.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from PIL import Image, ImageDraw, ImageFont

from d4k.errors import OutputError
from d4k.evaluation import Evaluation, Measuring, find_subjects, markdown_table, measure, metrics_by_name, score_table
from d4k.files import atomic_file, write_text
from d4k.images import Crop, list_pictures, open_picture, save_picture
from d4k.pipeline import Pipeline
from d4k.plugins import create
from d4k.protocols import Dataset
from d4k.report import write_report
from d4k.sampling import Job
from d4k.training import Run

__all__ = ["run_demo"]

MODEL = "tiny-sd3"
PHOTOS = ("astronaut", "coffee", "rocket", "retina")
SIZE = 384
STEPS = 450
BATCH = 4
LEARNING_RATE = 1e-3
SAMPLING_STEPS = 28
GUIDANCE = 1.5
LOOKS, LOOK_STEPS = 5, 8
SEED = 0
METRICS = ("glcm", "glcm-entropy", "compression-ratio")
ROWS = {"photographs": "photographs", "before": "before", "stages": "stages, no training", "after": "after fine-tuning"}
"""What is shown and measured: folder, and what the sheet, the table and the report call it."""
LEFT = (
    ("report/index.html", "open it in a browser: the table, and a viewer down to single pixels"),
    ("contact-sheet.png", "photograph, before, stages and after, side by side"),
    ("over-time.png", "the same prompts and seeds every few steps of the fine-tuning"),
    ("scores.md", "the table above"),
    ("loss.png", "the loss curve"),
    ("run/config.toml", "the settings of the run"),
    ("run/model", "the fine-tuned model"),
)
SCORES = "scores"
MARKER = ".d4k-demo"


@frozen
class Outcome:
    """What a demo leaves: its folder, the run, and each of `ROWS` as it was measured."""

    folder: Path
    run: Run
    evaluations: Sequence[Evaluation]


def run_demo(folder: Path, *, steps: int | None = None, say: Callable[[str], object] = print) -> Outcome:
    """Generate, generate in stages, fine-tune, generate again, score and lay it all out in a folder.

    Args:
        folder: made anew; an earlier demo in it is replaced, anything else is refused.
        steps: fine-tuning steps; None is what the demo was tuned for.
        say: receives what happens, a line at a time.

    Raises:
        OutputError: the folder holds something that is not a demo.
    """
    started, steps = time.monotonic(), steps or STEPS
    _claim(folder)
    dataset = create("dataset", "sample-photos", names=list(PHOTOS))
    prompts = [dataset[i].caption for i in range(len(dataset))]
    _save_photographs(dataset, folder / "photographs")

    say(f"1/5 {MODEL}, trained at 256 pixels, samples {len(prompts)} prompts at {SIZE}")
    _generate(Pipeline.from_pretrained(MODEL), prompts, folder / "before", stages=SIZE)

    say(f"2/5 the same in stages, without any training: its own size, enlarged, and gone on with at {SIZE}")
    pipe = Pipeline.from_pretrained(MODEL, positions="interpolate")
    _generate(pipe, prompts, folder / "stages", stages="auto")

    say(f"3/5 fine-tuning at {SIZE} pixels with the wavelet loss, positions interpolated")
    run = pipe.train(
        dataset="sample-photos",
        dataset_options={"names": list(PHOTOS)},
        loss="wavelet",
        output_dir=folder / "run",
        steps=steps,
        width=SIZE,
        height=SIZE,
        batch_size=BATCH,
        lr=LEARNING_RATE,
        schedule="cosine",
        shift=2.0,
        save_every=0,
        validation_prompts=prompts,
        validation_every=max(1, steps // LOOKS),
        validation_steps=LOOK_STEPS,
        validation_guidance=GUIDANCE,
    )
    shutil.copyfile(folder / "run" / "validation" / "pictures.png", folder / "over-time.png")

    say("4/5 the same prompts and seeds again")
    _generate(pipe, prompts, folder / "after")

    say("5/5 scores, and the report")
    evaluations = [_measure(folder, row, prompts) for row in ROWS]
    scores = {evaluation.name: evaluation.scores for evaluation in evaluations}
    write_text(folder / "scores.md", markdown_table(scores))
    _contact_sheet(folder, prompts)
    _loss_curve(run.losses, folder / "loss.png")
    write_report(folder / "report", [folder / SCORES / row for row in ROWS], title="A model beyond its size")
    say(f"\n{score_table(scores)}\n")
    for name, what in LEFT:
        say(f"{folder / name}: {what}")
    say(f"{time.monotonic() - started:.0f} seconds")
    return Outcome(folder, run, evaluations)


def _claim(folder: Path) -> None:
    """Empty a folder that an earlier demo made, and mark it; refuse any other that is not empty."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARKER).is_file())):
        raise OutputError(f"{folder} exists and is not an earlier demo; name another folder with --output")
    if folder.exists():
        shutil.rmtree(folder)
    write_text(folder / MARKER, "made by d4k demo; replaced by the next one\n")


def _save_photographs(dataset: Dataset, folder: Path) -> None:
    crop = Crop(SIZE, SIZE)
    for index in range(len(dataset)):
        sample = dataset[index]
        save_picture(crop(open_picture(sample.source, label=sample.id), 0), folder / f"{index:02d}-{PHOTOS[index]}.png")


def _generate(pipe: Pipeline, prompts: Sequence[str], folder: Path, **more: Any) -> None:
    jobs = [Job(prompt, id=name) for prompt, name in zip(prompts, PHOTOS, strict=True)]
    settings = {"width": SIZE, "height": SIZE, "steps": SAMPLING_STEPS, "guidance": GUIDANCE, **more}
    pipe.generate_to(folder, jobs, seed=SEED, **settings)


def _measure(folder: Path, row: str, prompts: Sequence[str]) -> Evaluation:
    """Measure one row beside the photographs, into a folder of its own with one store of rows for all."""
    photographs = row == "photographs"
    beside = None if photographs else folder / "photographs"
    subjects = find_subjects(folder / row, prompts if photographs else None, beside)
    about = {"pictures": "sample-photos"} if photographs else {"model": "run/model" if row == "after" else MODEL}
    place = folder / SCORES
    settings = Measuring(output=place / row, store=place / "rows", name=ROWS[row], seed=SEED, about=about)
    return measure(subjects, metrics_by_name(METRICS), settings)


def _contact_sheet(folder: Path, prompts: Sequence[str]) -> None:
    """A row for each of `ROWS`, a column a prompt; every picture at its own size."""
    label, gap, top = 190, 12, 44
    sheet = Image.new("RGB", (label + len(prompts) * (SIZE + gap), top + len(ROWS) * (SIZE + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(22)
    for column, prompt in enumerate(prompts):
        draw.text((label + column * (SIZE + gap), 10), prompt, "black", font=ImageFont.load_default(19))
    for row, (name, title) in enumerate(ROWS.items()):
        y = top + row * (SIZE + gap)
        draw.text((8, y + SIZE // 2), title, "black", font=font)
        for column, file in enumerate(list_pictures(folder / name)):
            sheet.paste(open_picture(file), (label + column * (SIZE + gap), y))
    save_picture(sheet, folder / "contact-sheet.png")


def _loss_curve(losses: Sequence[float], path: Path) -> None:
    """The loss of every step, and its running mean."""
    from matplotlib.figure import Figure

    values = torch.tensor(losses)
    width = max(1, len(values) // 20)
    mean = values.unfold(0, width, 1).mean(-1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(values) + 1), values, color="lightgrey", label="each step")
    axes.plot(range(width, len(values) + 1), mean, color="black", label=f"mean of {width} steps")
    axes.set(xlabel="step", ylabel="wavelet loss", ylim=(0, None))
    axes.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
