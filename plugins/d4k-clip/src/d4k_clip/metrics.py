"""Scores that are CLIP models: how well a picture fits its prompt, how beautiful it is, and what people prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from attrs import define, field
from attrs.validators import in_
from torch import Tensor

from d4k import ConfigError
from d4k_clip.base import ClipMetric, PromptMetric
from d4k_clip.captions import LongCaptions
from d4k_clip.head import Head, read_head
from d4k_clip.tower import Resize
from d4k_clip.weights import AESTHETICS, HPS_V21, PICKSCORE, VIT_B16, VIT_L14, Published, file_digest, find_weights

__all__ = ["Aesthetics", "CLIPScore", "HPSv2", "PickScore"]


@define(eq=False, slots=False)
class CLIPScore(PromptMetric):
    """CLIPScore: 100 times the cosine of the embeddings of picture and prompt, at least 0; mean over pictures.

    With CLIP ViT-B/16 of OpenAI, as the tables of Diffusion-4K have it: about 20 to 35. The paper that defines the
    score multiplies with 2.5 in place of 100.

    Args:
        model: "ViT-B-16-quickgelu" or "ViT-L-14-quickgelu", whose weights are on the Hub; or another, with `weights`.
        weights: a local file.
        sha256: that the file must have.
        long_captions: "truncate" reads the first 75 tokens of a longer prompt, as published; "chunks" reads all, 75 at
            a time, and averages the cosines of the parts, each by its number of tokens.

    Source: Hessel et al., "CLIPScore", arXiv 2104.08718, equation 1; Zhang et al., arXiv 2503.18352, section 4.
    """

    name: ClassVar[str] = "clip-score"
    published: ClassVar[Mapping[str, Published]] = {"ViT-B-16-quickgelu": VIT_B16, "ViT-L-14-quickgelu": VIT_L14}

    model: str = "ViT-B-16-quickgelu"
    long_captions: LongCaptions = field(default="truncate", kw_only=True, validator=in_(("truncate", "chunks")))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a score shows: also what became of long captions."""
        return {**super().settings, "long_captions": self.long_captions}

    @property
    def _long_captions(self) -> LongCaptions:
        return self.long_captions

    def _value(self, cosine: float) -> float:
        return 100 * max(cosine, 0.0)


@define(eq=False, slots=False)
class PickScore(PromptMetric):
    """PickScore: which of two pictures for a prompt people choose, learned from Pick-a-Pic; mean over pictures.

    The cosine of picture and prompt times the model's logit scale, which is about 100: about 18 to 24. A difference of
    two pictures' scores is the log-odds of the choice.

    Args:
        model: architecture of the weights.
        weights: a local file, `model.safetensors`.
        sha256: that the file must have.

    Source: Kirstain et al., "Pick-a-Pic", arXiv 2305.01569, section 4.
    """

    name: ClassVar[str] = "pickscore"
    published: ClassVar[Mapping[str, Published]] = {"ViT-H-14": PICKSCORE}

    model: str = "ViT-H-14"


@define(eq=False, slots=False)
class HPSv2(PromptMetric):
    """Human preference score v2.1: 100 times the cosine of picture and prompt, by a CLIP trained on choices of people.

    About 20 to 35. The longer side of a picture becomes 224 pixels and the rest is black, as its authors do it.

    Args:
        model: architecture of the weights.
        weights: a local file, `HPS_v2.1_compressed.pt`.
        sha256: that the file must have.

    Source: Wu et al., "Human Preference Score v2", arXiv 2306.09341.
    """

    name: ClassVar[str] = "hpsv2"
    published: ClassVar[Mapping[str, Published]] = {"ViT-H-14": HPS_V21}
    resize: ClassVar[Resize] = "longest"

    model: str = "ViT-H-14"

    def _value(self, cosine: float) -> float:
        return 100 * cosine


@define(eq=False, slots=False)
class Aesthetics(ClipMetric):
    """LAION aesthetics: how people rate a picture from 1 to 10, predicted from its CLIP embedding; mean over pictures.

    Five linear layers (`sac+logos+ava1-l14-linearMSE`) on the embedding of CLIP ViT-L/14 of OpenAI, of length 1. About
    5 to 7 for pictures of generators.

    Args:
        model: architecture of the CLIP model.
        weights: a local file of the CLIP model.
        sha256: that this file must have.
        head: a local file of the head; None takes it from the Hub.
        head_sha256: that this file must have; None takes that of the published one, or any of your own.

    Source: Schuhmann, "improved-aesthetic-predictor", 2022; Schuhmann et al., "LAION-5B", arXiv 2210.08402.
    """

    name: ClassVar[str] = "aesthetics"
    needs: ClassVar[frozenset[Literal["image", "prompt"]]] = frozenset({"image"})
    published: ClassVar[Mapping[str, Published]] = {"ViT-L-14-quickgelu": VIT_L14}

    model: str = "ViT-L-14-quickgelu"
    head: str | None = field(default=None, kw_only=True)
    head_sha256: str | None = field(default=None, kw_only=True)
    _head: Head | None = field(default=None, init=False, repr=False)

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row: also the SHA-256 of the head."""
        if self.head is None and self.head_sha256 is None:
            self.head_sha256 = AESTHETICS.sha256
        if self.head is not None:
            self._head_file()
        return {**super().observation, "head": self.head_sha256}

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a score shows: also the digest of the head."""
        known = AESTHETICS.sha256 if self.head is None else None
        return {**super().settings, "head_sha256": self.head_sha256 or known}

    def load(self, device: torch.device) -> None:
        """Load the model and the head.

        Raises:
            CheckpointError: weights cannot be had, are others than they should be, or do not fit one another.
        """
        path = self._head_file()
        super().load(device)
        self._head = read_head(path)
        width = int(self._loaded.architecture.config["embed_dim"])
        if self._head.width != width:
            raise ConfigError(
                f"the aesthetics head {path} takes {self._head.width} numbers, and {self.model} gives {width}"
            )

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        """The score of each picture: (B, 1) float64.

        Raises:
            DataError: a picture is no uint8 (3, H, W).
        """
        tower = self._loaded
        assert self._head is not None  # load makes both
        return self._head(tower.embed_images(image, self.resize))[:, None]

    def _head_file(self) -> Path:
        path = find_weights(f"{self.name}.head", self.head, AESTHETICS, self.head_sha256)
        self.head_sha256 = file_digest(path)
        return path
