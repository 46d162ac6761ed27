"""Optimizers by name or by class, with their state where the run wants it."""

from d4k.training.optimizers.make import make_optimizer
from d4k.training.optimizers.modes import evaluation_weights, training_mode

__all__ = ["evaluation_weights", "make_optimizer", "training_mode"]
