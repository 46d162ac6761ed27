"""From a prompt to a picture."""

from d4k.sampling.folder import Generate, Recipe, generate_into
from d4k.sampling.index import INDEX
from d4k.sampling.jobs import Job, Target, fill_jobs, name_files
from d4k.sampling.loop import Callback, SamplingStep, decoded, sample, sample_latents, starting_noise
from d4k.sampling.output import PICTURES, check_output
from d4k.sampling.pictures import generate_jobs, generate_pictures
from d4k.sampling.progress import Progress
from d4k.sampling.recipe import NEEDED, check_recipe, versions
from d4k.sampling.settings import SCHEDULER, SamplingSettings, check_size, choose_settings, deviations, is_other_size

__all__ = [
    "INDEX",
    "NEEDED",
    "PICTURES",
    "SCHEDULER",
    "Callback",
    "Generate",
    "Job",
    "Progress",
    "Recipe",
    "SamplingSettings",
    "SamplingStep",
    "Target",
    "check_output",
    "check_recipe",
    "check_size",
    "choose_settings",
    "decoded",
    "deviations",
    "fill_jobs",
    "generate_into",
    "generate_jobs",
    "generate_pictures",
    "is_other_size",
    "name_files",
    "sample",
    "sample_latents",
    "starting_noise",
    "versions",
]
