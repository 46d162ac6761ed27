"""From a prompt to a picture."""

from d4k.sampling.begin import Given
from d4k.sampling.choose import (
    check_size,
    choose_settings,
    deviations,
    is_other_size,
    suggested_stages,
)
from d4k.sampling.folder import Generate, Recipe, generate_into
from d4k.sampling.index import INDEX
from d4k.sampling.jobs import Job, Target, fill_jobs, name_files
from d4k.sampling.kept import STAGES, Course
from d4k.sampling.loop import (
    Callback,
    CleanEstimate,
    Guide,
    SamplingStep,
    decoded,
    first_step,
    sample_latents,
    starting_noise,
)
from d4k.sampling.output import PICTURES, check_output
from d4k.sampling.pictures import generate_pictures
from d4k.sampling.progress import Planned, Progress
from d4k.sampling.recipe import NEEDED, check_recipe, versions
from d4k.sampling.sample import Batch, sample, sample_stages, steps_of
from d4k.sampling.sampler import Enlarger, Into, enlarge_jobs, generate_jobs
from d4k.sampling.settings import SamplingSettings, settings_from, settings_record
from d4k.sampling.sources import check_source
from d4k.sampling.stages import SCHEDULER, Stage, auto_stages, is_auto, read_size, stage_sizes

__all__ = [
    "INDEX",
    "NEEDED",
    "PICTURES",
    "SCHEDULER",
    "STAGES",
    "Batch",
    "Callback",
    "CleanEstimate",
    "Course",
    "Enlarger",
    "Generate",
    "Given",
    "Guide",
    "Into",
    "Job",
    "Planned",
    "Progress",
    "Recipe",
    "SamplingSettings",
    "SamplingStep",
    "Stage",
    "Target",
    "auto_stages",
    "check_output",
    "check_recipe",
    "check_size",
    "check_source",
    "choose_settings",
    "decoded",
    "deviations",
    "enlarge_jobs",
    "fill_jobs",
    "first_step",
    "generate_into",
    "generate_jobs",
    "generate_pictures",
    "is_auto",
    "is_other_size",
    "name_files",
    "read_size",
    "sample",
    "sample_latents",
    "sample_stages",
    "settings_from",
    "settings_record",
    "stage_sizes",
    "starting_noise",
    "steps_of",
    "suggested_stages",
    "versions",
]
