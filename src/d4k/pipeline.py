"""The facade: loads a model and generates, trains, evaluates and saves with whatever is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from PIL.Image import Image

from d4k.adapters import as_scales, load_model, merge_adapters, read_adapter, save_model, scale_adapters, switch_on
from d4k.config import RunConfig, from_mapping, run_sections
from d4k.evaluation import evaluate, metrics_by_name
from d4k.models import AppliedAdapter, LoadedModel, ModelRef, split_settings
from d4k.protocols import Backbone, Dataset, Loss, Metric, Score
from d4k.sampling import Callback, Into, Job, generate_jobs, generate_pictures
from d4k.training import Run, as_component, fine_tune, origin

__all__ = ["Pipeline"]


class Pipeline:
    """A loaded model. Make one with `Pipeline.from_pretrained`.

    Attributes:
        backbone: what computes.
        loaded: which model it is, how it was loaded, and its adapters: one frozen value.
    """

    def __init__(self, backbone: Backbone, loaded: LoadedModel) -> None:
        self.backbone, self.loaded = backbone, loaded

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | ModelRef,
        *,
        adapters: Sequence[str | Path] | Mapping[str | Path, float] = (),
        revision: str | None = None,
        variant: str | None = None,
        transformer: str | Path | None = None,
        **settings: Any,
    ) -> Pipeline:
        """Load a model.

        Args:
            model: a registered checkpoint (`d4k plugins` lists them), a local folder in the diffusers layout, the
                folder of a run or of a checkpoint in it, or a Hub id; or all that names a model, as a `d4k.ModelRef`.
            adapters: adapters (LoRA) to switch on, as files, folders or Hub ids; or a table of their scales.
            revision: of a Hub id: branch, tag or commit.
            variant: of the weight files, such as "fp16".
            transformer: another denoiser for the model: a single file in the names of diffusers or of the original
                release, a folder, a checkpoint of a run, or a Hub id.
            settings: any field of `d4k.Loading`, such as `dtype="bfloat16"`; and any option, such as `downscale=16`.

        Raises:
            UnknownNameError: there is no such model, dtype, offload, quantisation, back-end or step cache.
            CheckpointError: the model or an adapter cannot be read, or does not fit.
            ConfigError: the backbone has no such option, or this machine cannot do what is asked.
        """
        loading, options = split_settings(settings)
        if isinstance(model, ModelRef):
            ref = evolve(model, options={**model.options, **options})
        else:
            ref = ModelRef(model, revision, variant, transformer, as_scales(adapters), options)
        return cls(*load_model(ref, loading))

    @property
    def adapters(self) -> Mapping[str, AppliedAdapter]:
        """The adapters that are loaded, by name, switched on or not."""
        return self.loaded.adapters

    @property
    def merged(self) -> tuple[AppliedAdapter, ...]:
        """The adapters that became part of the model's own weights."""
        return self.loaded.merged

    def load_adapter(self, source: str | Path, scale: float = 1.0, name: str | None = None) -> str:
        """Switch on an adapter (LoRA), beside those that are on.

        Args:
            source: a safetensors file, the folder of one or of a run, or a Hub id such as owner/name.
            scale: its updates count this many times.
            name: to call it by; None names it after its file or folder.

        Returns:
            The name.

        Raises:
            CheckpointError: it cannot be read, or does not fit the model, which is as before.
            ConfigError: the name is taken, or has other than letters, digits and underscores.
        """
        self.loaded = switch_on(self.backbone.trainable, self.loaded, read_adapter(source), scale, name)
        return list(self.loaded.adapters)[-1]

    def set_adapters(self, scales: Mapping[str, float]) -> None:
        """Give adapters other scales; those that are not named are switched off.

        Raises:
            UnknownNameError: there is no adapter of that name.
            ConfigError: a scale is not a finite number.
        """
        self.loaded = scale_adapters(self.backbone.trainable, self.loaded, scales)

    def merge_adapters(self) -> None:
        """Make the adapters that are on part of the model's own weights, times their scales, and drop the others."""
        self.loaded = merge_adapters(self.backbone.trainable, self.loaded)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        batch_size: int = 1,
        on_step: Callback | None = None,
        **settings: Any,
    ) -> list[Image]:
        """Generate one picture for each prompt.

        Args:
            prompt: one or several.
            seed: of every picture, or one for each; with one prompt, several seeds give several pictures. A picture
                depends on its own seed only, not on its place or the batch size.
            batch_size: pictures at a time.
            on_step: called after every step; see `d4k.sampling.SamplingStep`.
            settings: `width`, `height`, `steps`, `guidance`, `shift` and `negative_prompt`, see `d4k.SamplingSettings`;
                what is None or left out is what the model was trained or registered with, or its backbone's preset.

        Returns:
            RGB pictures; `picture.info["d4k"]` holds the recipe as a dict.

        Raises:
            ConfigError: a value does not suit the backbone.
        """
        inputs = (self.backbone, self.loaded, prompt, seed, settings)
        return list(generate_pictures(*inputs, batch_size=batch_size, on_step=on_step))

    def generate_to(
        self,
        output: str | Path,
        jobs: Sequence[str | Job],
        *,
        seed: int = 0,
        keep_stages: bool = False,
        on_step: Callback | None = None,
        on_picture: Callable[[Path], None] | None = None,
        **settings: Any,
    ) -> list[Path]:
        """Generate many pictures into a folder, with their recipes and an `index.jsonl`; resumable.

        Called again it generates what is missing; under `accelerate launch` every process generates its share.

        Args:
            output: a folder that is new, empty or of an earlier call; or for one job a new file.
            jobs: prompts, or `d4k.Job` objects with a seed, a size, a negative prompt or an image of their own.
            seed: of the jobs that have none.
            keep_stages: leave finished stages in `stages/`, or beside a file in `NAME-stages/`.
            on_step: called after every step.
            on_picture: called with each file that was written.
            settings: as of `generate`, for the jobs without their own.

        Returns:
            The files of this process's share, in the order of the jobs.

        Raises:
            ConfigError: a value does not suit the backbone.
            OutputError: the folder holds other pictures, or some of other settings, or cannot be written.
        """
        into = Into(Path(output), keep_stages, on_step, on_picture)
        return generate_jobs(into, self.backbone, self.loaded, jobs, {"seed": seed, **settings})

    def train(
        self,
        *,
        dataset: str | Dataset,
        output_dir: str | Path,
        loss: str | Loss = "mse",
        dataset_options: Mapping[str, Any] | None = None,
        loss_options: Mapping[str, Any] | None = None,
        resume: bool = False,
        on_step: Callable[[int, float], None] | None = None,
        **settings: Any,
    ) -> Run:
        """Fine-tune the model in place.

        Args:
            dataset: registered name, or any `d4k.Dataset`.
            output_dir: a folder that does not exist or is empty.
            loss: registered name, or any `d4k.Loss`.
            dataset_options: of a dataset given by name.
            loss_options: of a loss given by name.
            resume: go on from the newest checkpoint in `output_dir`.
            on_step: called with each step and its loss.
            settings: any key of the sections data, flow, optimizer and training of the TOML file, such as `steps=500`,
                `lr=1e-5`, `width=4096`; `seed`; `schedule="cosine"` names the learning-rate schedule; `adapter_rank=16`
                or another key of the section adapter after `adapter_` trains an adapter, which stays switched on.

        Raises:
            ConfigError: a setting is unknown or out of range.
            OutputError: `output_dir` is not empty, or cannot be written.
            DataError: a picture cannot be used.
        """
        data = {
            **origin(self.loaded, Path(output_dir) if resume else None),
            "output_dir": str(output_dir),
            "dataset": as_component(dataset, dataset_options),
            "loss": as_component(loss, loss_options),
            **run_sections(settings),
        }
        return self.run(from_mapping(RunConfig, data), dataset=dataset, loss=loss, resume=resume, on_step=on_step)

    def run(
        self,
        config: RunConfig,
        *,
        dataset: str | Dataset | None = None,
        loss: str | Loss | None = None,
        resume: bool = False,
        on_step: Callable[[int, float], None] | None = None,
    ) -> Run:
        """Fine-tune as a configuration says; `dataset` and `loss` replace what it names when they are objects."""
        inputs = (self.backbone, self.loaded, config)
        run, self.loaded = fine_tune(*inputs, dataset=dataset, loss=loss, resume=resume, on_step=on_step)
        return run

    def evaluate(
        self,
        images: str | Path | Sequence[str | Path],
        metrics: str | Sequence[str] | Mapping[str, Metric],
        *,
        prompts: Sequence[str] | None = None,
        reference: str | Path | None = None,
        **settings: Any,
    ) -> list[Score]:
        """Measure a folder of images, or files, with registered metrics, or with a table of names and metrics.

        The settings are those of `d4k.evaluation.evaluate`, such as `references`, `output`, `strict` or `resamples`.
        """
        chosen = metrics if isinstance(metrics, Mapping) else metrics_by_name(metrics)
        return evaluate(images, chosen, prompts=prompts, reference=reference, **settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model in the diffusers layout; diffusers' own `from_pretrained` loads it.

        Raises:
            ConfigError: it has adapters that are not merged.
            OutputError: the folder exists and is not empty, or cannot be written.
        """
        save_model(self.backbone, self.loaded, Path(folder))
