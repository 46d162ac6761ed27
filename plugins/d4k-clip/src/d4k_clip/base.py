"""What the metrics share: a CLIP model that is found, checked and loaded once, and rows of pictures and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from attrs import define, field
from torch import Tensor

from d4k import ConfigError, DataError
from d4k_clip.captions import LongCaptions, read_caption
from d4k_clip.tower import Resize, Tower, find_architecture, load_tower
from d4k_clip.weights import VIT_B16, VIT_L14, Published, file_digest, find_weights

__all__ = ["ClipMetric", "PromptMetric"]


@define(eq=False, slots=False)
class ClipMetric:
    """What the metrics of this package share: a CLIP model, found, checked and loaded once.

    Args:
        model: a name of open_clip, the path of a JSON file in its format, or what such a file holds.
        weights: a file of weights, or a folder that holds one of the published name; None takes the published file
            from the Hub.
        sha256: that the file must have; None takes that of the published file, or any of a file of your own. After
            `load` it is that of the file in use.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Literal["image", "prompt"]]]
    higher_is_better: ClassVar[bool | None] = True
    unit: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ("open_clip_torch", "torchvision")
    published: ClassVar[Mapping[str, Published]]
    resize: ClassVar[Resize] = "shortest"

    model: str
    weights: str | None = field(default=None, kw_only=True)
    sha256: str | None = field(default=None, kw_only=True)
    _tower: Tower | None = field(default=None, init=False, repr=False)

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row: the architecture, the SHA-256 of the weights, and the preprocessing.

        Where the digest of the weights is not known beforehand, their file is found and read for it.

        Raises:
            CheckpointError: that file cannot be had.
        """
        architecture = find_architecture(self.model)
        return {
            "rows": self.name,
            "version": 1,
            "model": architecture.name,
            "weights": self._digest(),
            "preprocessing": architecture.preprocessing(self.resize),
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a score shows: the options, but with the digest of the weights in place of where they lie."""
        known = self._published.sha256 if self._published is not None and self.weights is None else None
        return {"model": find_architecture(self.model).name, "sha256": self.sha256 or known or None}

    def load(self, device: torch.device) -> None:
        """Load the model, or share the one that another metric holds.

        Raises:
            CheckpointError: weights cannot be had, or are others than they should be.
        """
        path, published = self._file(), self._published
        self._check_architecture(path)
        self._tower = load_tower(find_architecture(self.model), path, device, published)

    def score(self, rows: Tensor, references: Tensor | None = None) -> float | Mapping[str, float]:  # noqa: ARG002
        """Mean over pictures.

        Raises:
            DataError: there are none.
        """
        return float(_some(rows)[:, 0].mean())

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Means of resamples, (R,)."""
        return weights @ rows[:, 0].double() / weights.sum(1)

    def remarks(self, count: int, references: int) -> list[str]:  # noqa: ARG002
        """Whether the weights are others than the published ones."""
        published = self._published
        if self.sha256 and not (published and published.sha256 in ("", self.sha256)):
            return [f"The weights are a file of your own, SHA-256 {self.sha256[:12]}, not the published ones."]
        return []

    @property
    def _published(self) -> Published | None:
        return self.published.get(self.model)

    @property
    def _loaded(self) -> Tower:
        if self._tower is None:
            raise ConfigError(f"{self.name} has no weights yet: call load(device) before observe")
        return self._tower

    def _file(self) -> Path:
        path = find_weights(f"{self.name}.weights", self.weights, self._published, self.sha256)
        self.sha256 = file_digest(path)
        return path

    def _digest(self) -> str:
        """SHA-256 of the weights; without their file where it is known."""
        published = self._published
        if self.sha256 is None and self.weights is None and published is not None and published.sha256:
            self.sha256 = published.sha256
        if self.sha256 is None or self.weights is not None:
            self._file()
        return str(self.sha256)

    def _check_architecture(self, path: Path) -> None:
        """Refuse published weights under another architecture of the same shapes: QuickGELU shows in no weight."""
        for model, published in _KNOWN.items():
            if published.sha256 == self.sha256 and find_architecture(model).key != find_architecture(self.model).key:
                raise ConfigError(
                    f"{path} holds the weights of {model}, and {self.name} was to be computed with "
                    f"{self.model}: set {self.name}.model to {model}"
                )


@define(eq=False, slots=False)
class PromptMetric(ClipMetric):
    """Metrics of picture and prompt: a row holds the score of a picture, and the tokens of its prompt."""

    needs: ClassVar[frozenset[Literal["image", "prompt"]]] = frozenset({"image", "prompt"})

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row: also what becomes of long prompts."""
        return {**super().observation, "long_captions": self._long_captions}

    def observe(self, image: Sequence[Tensor], prompt: Sequence[str]) -> Tensor:
        """The score of each picture, and the tokens of its prompt with begin and end: (B, 2) float64.

        Raises:
            DataError: a picture is no uint8 (3, H, W), or there is no prompt for each.
        """
        if len(image) != len(prompt):
            raise DataError(f"{len(image)} pictures, but {len(prompt)} prompts: there must be one for each")
        tower = self._loaded
        captions = {
            text: read_caption(text, tower.architecture.context, self._long_captions) for text in dict.fromkeys(prompt)
        }
        pictures = tower.embed_images(image, self.resize).double()
        parts = [caption.tokens for caption in captions.values()]
        embeddings = tower.embed_tokens(torch.cat(parts)).double() if parts else torch.zeros(0, pictures.shape[1])
        texts = dict(zip(captions, torch.split(embeddings, [len(part) for part in parts]), strict=True))
        rows = torch.zeros(len(image), 2, dtype=torch.float64)
        for row, picture, text in zip(rows, pictures, prompt, strict=True):
            row[0] = self._value(float(captions[text].shares @ (texts[text] @ picture)))
            row[1] = captions[text].length
        return rows

    def score(self, rows: Tensor, references: Tensor | None = None) -> Mapping[str, float]:  # noqa: ARG002
        """Mean over pictures, and how many prompts were longer than what CLIP reads at once.

        Raises:
            DataError: there are no pictures.
        """
        value, long = _some(rows)[:, 0].mean(), (rows[:, 1] > find_architecture(self.model).context).sum()
        return {self.name: float(value), "long-captions": float(long)}

    def remarks(self, count: int, references: int) -> list[str]:
        """What becomes of prompts that are too long, and as of any CLIP metric."""
        said = {
            "truncate": "of longer prompts CLIP reads the beginning: `long-captions` counts them",
            "chunks": "longer prompts are read in parts whose cosines are averaged by their tokens: `long-captions` "
            "counts them",
        }[self._long_captions]
        context = find_architecture(self.model).context
        return [f"CLIP reads {context} tokens of a prompt; {said}.", *super().remarks(count, references)]

    @property
    def _long_captions(self) -> LongCaptions:
        return "truncate"

    def _value(self, cosine: float) -> float:
        """The score of a picture whose embedding has this cosine with that of its prompt."""
        return self._loaded.logit_scale * cosine


_KNOWN = {"ViT-B-16-quickgelu": VIT_B16, "ViT-L-14-quickgelu": VIT_L14}
"""Published weights that need QuickGELU, by their architecture."""


def _some(rows: Tensor) -> Tensor:
    if not len(rows):
        raise DataError("no picture was measured; there must be at least one")
    return rows
