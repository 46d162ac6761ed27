"""pyiqa's no-reference metrics as metrics of rows: a row is what pyiqa says of one picture.

pyiqa itself is not a dependency: its licence, PolyForm Noncommercial 1.0.0, allows non-commercial use only. Which way
each metric points is noted here, since scores are also made where pyiqa is not, and compared with what pyiqa says of
itself when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import file_digest
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from attrs import define, field
from attrs.validators import instance_of, optional
from torch import Tensor

from d4k import CheckpointError, DataError
from d4k_pyiqa.randomness import same_numbers

__all__ = [
    "DBCNN",
    "Brisque",
    "ClipIQA",
    "HyperIQA",
    "IlNiqe",
    "Liqe",
    "Maniqa",
    "Musiq",
    "Niqe",
    "NoReference",
    "QAlign",
    "TopiqNR",
]

LICENCE = "pyiqa's licence, PolyForm Noncommercial, allows non-commercial use only"


@define(kw_only=True)
class NoReference:
    """What pyiqa's no-reference metrics share. A row is (1,): the value of the picture; the score is their mean.

    Args:
        weights: a local file with the weights of the network, which pyiqa reads in place of downloading its own; for
            the metrics that take one as `pretrained_model_path`.
    """

    weights: str | None = field(default=None, validator=optional(instance_of(str)))
    _model: Any = field(init=False, default=None, repr=False, eq=False)
    _device: torch.device = field(init=False, default=torch.device("cpu"), repr=False, eq=False)

    needs: ClassVar[frozenset[Literal["image"]]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ("pyiqa",)
    network: ClassVar[str]

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row: the metric, the release of pyiqa, and the digest of weights of one's own."""
        return {"rows": "pyiqa", "metric": self.network, "pyiqa": _version(), "weights": self._digest(), "seed": 0}

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the score shows: the metric by pyiqa's name, and whose weights."""
        return {"network": self.network, "weights": self._digest() or "pyiqa's own"}

    def load(self, device: torch.device) -> None:
        """Make the metric on a device; pyiqa downloads its weights when it does so for the first time.

        Raises:
            CheckpointError: pyiqa is not installed, cannot make the metric, or points another way than is noted here.
        """
        pyiqa = _imported(self.network)
        own = {} if self.weights is None else {"pretrained_model_path": str(self._file())}
        try:
            model = pyiqa.create_metric(self.network, device=device, **own)
        except Exception as error:  # it asserts, downloads and unpickles
            raise CheckpointError(
                f"pyiqa cannot make '{self.network}': {type(error).__name__}: {_first_line(error)} Without a network, "
                f"put its weights where pyiqa looks, by default ~/.cache/torch/hub/pyiqa, or give the option weights"
            ) from error
        mode, lower = getattr(model, "metric_mode", "NR"), bool(model.lower_better)
        if mode != "NR" or lower == self.higher_is_better:
            raise CheckpointError(
                f"pyiqa {_version()} says of '{self.network}' that it is {mode} and that "
                f"{'lower' if lower else 'higher'} is better, d4k-pyiqa the contrary: update d4k-pyiqa"
            )
        self._model, self._device = model, device

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        """Pyiqa's value of each picture, seen alone, in RGB in [0, 1] and at its own size: (B, 1) float64.

        Metrics that look at random crops, such as MANIQA, look at the same ones of a picture each time.

        Raises:
            DataError: a picture is no uint8 (3, H, W), or pyiqa cannot measure it.
        """
        if self._model is None:
            raise RuntimeError(f"load of {type(self).__name__} must be called before observe")
        return torch.tensor([[self._value(picture)] for picture in image], dtype=torch.float64).reshape(-1, 1)

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:  # noqa: ARG002
        """Mean over pictures.

        Raises:
            DataError: there are none.
        """
        if not len(rows):
            raise DataError("no picture was measured; there must be at least one")
        return float(rows.double().mean())

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Means of resamples, (R,)."""
        return weights @ rows[:, 0].double() / weights.sum(1)

    def remarks(self, count: int, references: int) -> tuple[str, ...]:  # noqa: ARG002
        """What the licence says."""
        return (f"{LICENCE}, and so may those of the weights.",)

    def _value(self, picture: Tensor) -> float:
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
            raise DataError(f"pictures must be uint8 (3, H, W), got {picture.dtype} {tuple(picture.shape)}")
        shown = f"a picture of {picture.shape[2]}x{picture.shape[1]} pixels"
        pixels = picture[None].to(self._device).float() / 255
        try:
            with torch.no_grad(), same_numbers(self._device):
                value = float(self._model(pixels))
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            raise DataError(
                f"pyiqa's {self.network} cannot measure {shown}: {type(error).__name__}: {_first_line(error)}"
            ) from error
        if not -float("inf") < value < float("inf"):
            raise DataError(f"pyiqa's {self.network} gave {value} for {shown}, which is no score")
        return value

    def _file(self) -> Path:
        path = Path(str(self.weights)).expanduser()
        if not path.is_file():
            raise CheckpointError(f"there is no file of weights {path} for pyiqa's {self.network}")
        return path

    def _digest(self) -> str | None:
        return None if self.weights is None else _sha256(self._file())


def _imported(network: str) -> Any:
    try:
        import pyiqa
    except ModuleNotFoundError as error:
        if error.name != "pyiqa":
            raise CheckpointError(f"pyiqa is installed, but cannot be imported: {_first_line(error)}") from error
        raise CheckpointError(
            f"pyiqa-{network.replace('_', '-')} needs pyiqa, which is not installed: pip install pyiqa. {LICENCE}"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"pyiqa is installed, but cannot be imported: {type(error).__name__}: {_first_line(error)}"
        ) from error
    return pyiqa


def _version() -> str:
    try:
        return metadata.version("pyiqa")
    except metadata.PackageNotFoundError:
        return "?"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else "no reason given."


@lru_cache(maxsize=8)
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


class Musiq(NoReference):
    """MUSIQ, trained on KonIQ-10k: 0 to 100, higher is better.

    Source: Ke et al., "MUSIQ: Multi-scale Image Quality Transformer", arXiv 2108.05997.
    """

    network: ClassVar[str] = "musiq"


class Maniqa(NoReference):
    """MANIQA, trained on KonIQ-10k: 0 to 1, higher is better. It looks at twenty crops of 224 pixels.

    Source: Yang et al., "MANIQA: Multi-dimension Attention Network", arXiv 2204.08958.
    """

    network: ClassVar[str] = "maniqa"


class TopiqNR(NoReference):
    """TOPIQ without a reference, trained on KonIQ-10k: 0 to 1, higher is better.

    Source: Chen et al., "TOPIQ: A Top-down Approach from Semantics to Distortions", arXiv 2308.03060.
    """

    network: ClassVar[str] = "topiq_nr"


class Liqe(NoReference):
    """LIQE: 1 to 5, higher is better.

    Source: Zhang et al., "Blind Image Quality Assessment via Vision-Language Correspondence", arXiv 2303.14968.
    """

    network: ClassVar[str] = "liqe"


class ClipIQA(NoReference):
    """CLIP-IQA: 0 to 1, higher is better.

    Source: Wang et al., "Exploring CLIP for Assessing the Look and Feel of Images", arXiv 2207.12396.
    """

    network: ClassVar[str] = "clipiqa"


class QAlign(NoReference):
    """Q-Align, asked for quality: 1 to 5, higher is better. A model of 7 billion weights.

    Source: Wu et al., "Q-Align: Teaching LMMs for Visual Scoring via Discrete Text-Defined Levels", arXiv 2312.17090.
    """

    network: ClassVar[str] = "qalign"


class HyperIQA(NoReference):
    """HyperIQA: 0 to 1, higher is better.

    Source: Su et al., "Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network", CVPR 2020.
    """

    network: ClassVar[str] = "hyperiqa"


class DBCNN(NoReference):
    """DBCNN, trained on KonIQ-10k: 0 to 1, higher is better.

    Source: Zhang et al., "Blind Image Quality Assessment Using a Deep Bilinear CNN", arXiv 1907.02665.
    """

    network: ClassVar[str] = "dbcnn"


class Niqe(NoReference):
    """NIQE: lower is better. It has no network.

    Source: Mittal et al., "Making a 'Completely Blind' Image Quality Analyzer", IEEE SPL 20(3), 2013.
    """

    network: ClassVar[str] = "niqe"
    higher_is_better: ClassVar[bool] = False


class IlNiqe(NoReference):
    """IL-NIQE: lower is better. It has no network.

    Source: Zhang et al., "A Feature-Enriched Completely Blind Image Quality Evaluator", IEEE TIP 24(8), 2015.
    """

    network: ClassVar[str] = "ilniqe"
    higher_is_better: ClassVar[bool] = False


class Brisque(NoReference):
    """BRISQUE: lower is better. It has no network.

    Source: Mittal et al., "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP 21(12), 2012.
    """

    network: ClassVar[str] = "brisque"
    higher_is_better: ClassVar[bool] = False
