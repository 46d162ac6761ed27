"""What a run's folder is made of: the one place that spells its names."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from d4k.errors import CheckpointError
from d4k.files import is_folder

__all__ = ["EMA", "OPTIMIZER", "ROWS", "SHARDS", "STATE", "TRAINABLE", "RunFolder"]

TRAINABLE = "trainable.safetensors"
"""In a checkpoint of a run: the weights that the run changes; with FSDP2 they are in `SHARDS`."""

OPTIMIZER = "optimizer.pt"
"""In a checkpoint of a run: the state of the optimizer and of its schedule."""

STATE = "state.json"
"""In a checkpoint of a run: its format and the number of steps done; a checkpoint without it is not whole."""


EMA = "ema.safetensors"
"""In a checkpoint of a run that keeps one: the moving average of those weights."""

ROWS = "losses.jsonl"
"""In a checkpoint of a run: the losses up to it, one line of JSON a step."""

SHARDS = "shards"
"""In a checkpoint of a run with FSDP2: the folder of weights, state of the optimizer and average, a file a process."""


@frozen
class RunFolder:
    """The paths in the folder of a training run; nothing is read or made.

    Args:
        path: the folder.

    >>> RunFolder(Path("runs/first")).state(500).as_posix()
    'runs/first/checkpoints/step-00000500'
    """

    path: Path

    @property
    def config(self) -> Path:
        """All settings of the run, as TOML."""
        return self.path / "config.toml"

    @property
    def losses(self) -> Path:
        """One line of JSON for each step."""
        return self.path / "losses.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The folder that TensorBoard reads."""
        return self.path / "tensorboard"

    @property
    def validation(self) -> Path:
        """The folder of what was looked at while the model trained: pictures, and losses on what is held out."""
        return self.path / "validation"

    @property
    def tracking(self) -> Path:
        """The folder of what trackers keep on this disk."""
        return self.path / "tracking"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The folder of the fine-tuned model, written at the end of a run that trains all weights."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """The folder of the adapter, written at the end of a run that trains one."""
        return self.path / "adapter"

    def state(self, step: int) -> Path:
        """The folder of the checkpoint after `step` steps."""
        return self.checkpoints / f"step-{step:08d}"

    def states(self) -> list[Path]:
        """The checkpoints that are there and whole, the oldest first."""
        if not is_folder(self.checkpoints, CheckpointError):
            return []
        return sorted(path for path in self.checkpoints.glob("step-*") if (path / STATE).is_file())

    def latest_state(self) -> Path | None:
        """The newest checkpoint, or None."""
        return next(reversed(self.states()), None)

    @classmethod
    def of_state(cls, state: Path) -> RunFolder:
        """The run that a checkpoint belongs to."""
        return cls(state.parent.parent)
