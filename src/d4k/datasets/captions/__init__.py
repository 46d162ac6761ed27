"""Captions of the pictures of a dataset: asked for, kept in a log, reviewed by a person, written into its metadata."""

from d4k.datasets.captions.corrections import read_corrections
from d4k.datasets.captions.pictures import LOG
from d4k.datasets.captions.review import write_review
from d4k.datasets.captions.run import Captioned, caption_folder
from d4k.datasets.captions.settings import INSTRUCTION, Captioning

__all__ = [
    "INSTRUCTION",
    "LOG",
    "Captioned",
    "Captioning",
    "caption_folder",
    "read_corrections",
    "write_review",
]
