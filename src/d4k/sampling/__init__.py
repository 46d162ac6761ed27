"""From a prompt to a picture."""

from d4k.sampling.folder import INDEX, Draw, Job, Planned, Progress, generate_planned, name_files, refuse_foreign
from d4k.sampling.loop import Callback, SamplingStep, sample, sample_latents, starting_noise
from d4k.sampling.pictures import generate_into, generate_pictures
from d4k.sampling.recipe import NEEDED, check_recipe, versions
from d4k.sampling.settings import SamplingSettings, check_size, choose_settings, deviations

__all__ = [
    "INDEX",
    "NEEDED",
    "Callback",
    "Draw",
    "Job",
    "Planned",
    "Progress",
    "SamplingSettings",
    "SamplingStep",
    "check_recipe",
    "check_size",
    "choose_settings",
    "deviations",
    "generate_into",
    "generate_pictures",
    "generate_planned",
    "name_files",
    "refuse_foreign",
    "sample",
    "sample_latents",
    "starting_noise",
    "versions",
]
