"""From photographs to a fine-tuned model."""

from d4k.training.data.pictures import Bucket, Chosen, LeftOut, choose_pictures
from d4k.training.data.samples import Batch, Feed
from d4k.training.data.source import CACHED_CAPTIONS, CACHED_LATENTS, Encoding, Source, View
from d4k.training.data.views import cache_folder
from d4k.training.disk import Disk
from d4k.training.dry_run import DryRun, dry_run, dry_run_from_config
from d4k.training.fine_tune import as_component, fine_tune, origin, train_from_config
from d4k.training.held_out import read_held_out_losses
from d4k.training.journal import read_losses
from d4k.training.launch import check_launch, first_process, speaking_once
from d4k.training.losses import MSELoss
from d4k.training.result import trained_with
from d4k.training.run import Run, train
from d4k.training.state import Share, State, load_state, save_state

__all__ = [
    "CACHED_CAPTIONS",
    "CACHED_LATENTS",
    "Batch",
    "Bucket",
    "Chosen",
    "Disk",
    "DryRun",
    "Encoding",
    "Feed",
    "LeftOut",
    "MSELoss",
    "Run",
    "Share",
    "Source",
    "State",
    "View",
    "as_component",
    "cache_folder",
    "check_launch",
    "choose_pictures",
    "dry_run",
    "dry_run_from_config",
    "fine_tune",
    "first_process",
    "load_state",
    "origin",
    "read_held_out_losses",
    "read_losses",
    "save_state",
    "speaking_once",
    "train",
    "train_from_config",
    "trained_with",
]
