"""From photographs to a fine-tuned model."""

from d4k.training.checks import refuse_several_processes
from d4k.training.data.pictures import Bucket, Chosen, LeftOut, choose_pictures
from d4k.training.data.samples import Batch, Feed
from d4k.training.data.source import CACHED_CAPTIONS, CACHED_LATENTS, Encoding, Source, View
from d4k.training.data.views import cache_folder
from d4k.training.fine_tune import as_component, fine_tune, origin, train_from_config
from d4k.training.journal import read_losses
from d4k.training.losses import MSELoss
from d4k.training.result import trained_with
from d4k.training.run import Run, train
from d4k.training.state import load_state, save_state

__all__ = [
    "CACHED_CAPTIONS",
    "CACHED_LATENTS",
    "Batch",
    "Bucket",
    "Chosen",
    "Encoding",
    "Feed",
    "LeftOut",
    "MSELoss",
    "Run",
    "Source",
    "View",
    "as_component",
    "cache_folder",
    "choose_pictures",
    "fine_tune",
    "load_state",
    "origin",
    "read_losses",
    "refuse_several_processes",
    "save_state",
    "train",
    "train_from_config",
    "trained_with",
]
