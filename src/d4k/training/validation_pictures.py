"""Pictures of fixed prompts and seeds that a model samples while it trains, and the sheet that shows them over time."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from d4k.config import RunConfig
from d4k.errors import ConfigError, D4KError, DataError
from d4k.files import atomic_folder, read_json, write_json
from d4k.images import save_picture, to_picture
from d4k.models import Model, RunFolder
from d4k.protocols import Backbone
from d4k.sampling import (
    Job,
    choose_settings,
    decoded,
    name_files,
    sample_latents,
    settings_record,
    starting_noise,
)
from d4k.training.engine import Engine
from d4k.training.result import trained_model
from d4k.training.sheets import Column, Row, contact_sheet, thumbnail

__all__ = ["SamplePictures"]

SHEET, RECORD = "pictures.png", "prompts.json"
SHOWN = 512
"""Longest side in pixels of a picture that TensorBoard and trackers get; the folder has it whole."""


class SamplePictures:
    """Pictures of the prompts of `validation`: sampled, kept in `validation/step-*`, laid out in one growing sheet.

    The prompts are encoded at once, since text encoders are released before the first step.

    Args:
        engine: of the run.
        backbone: loaded.
        config: of the run, with `validation`.
        run: where the run is kept.
        model: what is known of the model.

    Raises:
        ConfigError: a setting does not suit the backbone, or nothing is known of the model.
    """

    def __init__(
        self,
        engine: Engine,
        backbone: Backbone,
        config: RunConfig,
        run: RunFolder,
        model: Model | None,
    ) -> None:
        assert config.validation is not None
        if model is None:
            raise ConfigError("validation.prompts needs to know which model is trained: give train(..., model=...)")
        settings = config.validation
        self.engine, self.backbone, self.folder = engine, backbone, run.validation
        self.averaged = config.ema is not None
        numbers = range(settings.seed, settings.seed + settings.seeds)
        self.jobs = [Job(prompt, seed=number) for prompt in settings.prompts for number in numbers]
        given = {name: getattr(settings, name) for name in ("width", "height", "steps", "guidance")}
        self.settings = choose_settings(backbone, trained_model(backbone, model, config), given)
        with torch.no_grad():
            negative = self.settings.negative_prompt
            self.texts = {
                prompt: backbone.encode_text([prompt], negative).to(device="cpu") for prompt in settings.prompts
            }

    def __len__(self) -> int:
        """How many pictures there are, each of which one process can sample."""
        return len(self.jobs)

    def seen(self, step: int) -> bool:
        """Whether the pictures of a step are kept already."""
        path = self.folder / _name(step) / RECORD
        return path.is_file() and read_json(path, DataError) == self._record(step)

    def forget(self, after: int) -> None:
        """Remove the pictures of later steps, which a run that is resumed samples again."""
        later = {step: folder for step, folder in self._kept().items() if step > after}
        for folder in later.values():
            shutil.rmtree(folder)
        if later and self._kept():
            save_picture(self._sheet(), self.folder / SHEET)

    def measure(self, index: int, tick: Callable[[], None]) -> Tensor | str:
        """Sample a picture; with shared weights every process must ask.

        Args:
            index: of the picture.
            tick: called after each sampling step; it may raise.

        Returns:
            (3, H, W) uint8 on the CPU; where the model gave values that are no numbers, the words that say so.
        """
        job, device = self.jobs[index], self.engine.device
        noise = starting_noise(self.backbone, [job.seed or 0], self.settings.width, self.settings.height)
        text = self.texts[job.prompt].to(device=device)
        try:
            with self.engine.autocast():
                latent = sample_latents(
                    self.backbone,
                    text,
                    noise,
                    self.settings,
                    on_step=lambda _: tick(),
                    device=device,
                )
            return decoded(self.backbone, latent[0])
        except ConfigError:
            raise
        except D4KError as error:
            return str(error)

    def keep(self, step: int, found: Mapping[int, Tensor | str]) -> tuple[dict[str, float], dict[str, Image]]:
        """Write the pictures of a step, and the sheet anew, in the first process; warn of what cannot be sampled.

        Args:
            step: optimizer steps done.
            found: index of a picture -> what `measure` said.

        Returns:
            No figures; the pictures, made small, by name.

        Raises:
            OutputError: they cannot be written.
        """
        target = self.folder / _name(step)
        with atomic_folder(target) as temporary:
            for index, file in enumerate(name_files(temporary, self.jobs)):
                pixels = found[index]
                if isinstance(pixels, str):
                    warnings.warn(f"step {step} has no picture of '{file.job.prompt}': {pixels}", stacklevel=2)
                else:
                    save_picture(to_picture(pixels), file.file, recipe=self._recipe(file.job, step))
            write_json(temporary / RECORD, self._record(step))
        save_picture(self._sheet(), self.folder / SHEET)
        files = [target.file for target in name_files(target, self.jobs)]
        return {}, {f"validation/{file.stem}": thumbnail(file, SHOWN) for file in files if file.is_file()}

    def _record(self, step: int) -> dict[str, Any]:
        """What tells whether the pictures of a step are those that are wanted."""
        jobs = [{"prompt": job.prompt, "seed": job.seed} for job in self.jobs]
        return {"step": step, "averaged": self.averaged, "settings": settings_record(self.settings), "jobs": jobs}

    def _recipe(self, job: Job, step: int) -> dict[str, Any]:
        """What a picture was made with; it names no model, for the weights of that step may not be kept."""
        made = {"prompt": job.prompt, "seed": job.seed, **settings_record(self.settings)}
        return {**made, "run": str(self.folder.parent), "step": step, "averaged": self.averaged}

    def _kept(self) -> dict[int, Path]:
        """Step -> folder of what is kept, the earliest first."""
        found = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in self.folder.glob("step-*"))
        return dict(sorted((int(match[1]), path) for match, path in found if match is not None))

    def _sheet(self) -> Image:
        """All that is kept, side by side: a row for each prompt and seed, a column for each step."""
        columns = []
        for step, folder in self._kept().items():
            files = [target.file for target in name_files(folder, self.jobs)]
            columns.append(Column(f"step {step:,}", [file if file.is_file() else None for file in files]))
        rows = [Row(job.prompt, f"seed {job.seed}") for job in self.jobs]
        own = self.settings
        whose = "average of the weights (EMA)" if self.averaged else "the weights as trained"
        how = f"{own.width}x{own.height}, {own.steps} sampling steps, guidance {own.guidance:g}"
        return contact_sheet(f"{self.folder.parent.name}: {how}, {whose}", rows, columns)


def _name(step: int) -> str:
    return f"step-{step:08d}"
