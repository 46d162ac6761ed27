"""A vision-language model of transformers on this machine as a captioner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import define, field
from PIL import Image

from d4k import Caption, CheckpointError, ConfigError, DataError
from d4k.backbones import one_of, optional, text, whole
from d4k_caption.prepare import shrunk

__all__ = ["Transformers"]


@define(kw_only=True)
class Transformers:
    """Captions by a vision-language model of transformers, such as SmolVLM, LLaVA or Qwen-VL, on this machine.

    Answers are decoded greedily, so the same picture gets the same caption again. Weights are read from safetensors,
    and no code that comes with a model is run.

    Args:
        model: a folder, or a Hub id such as "HuggingFaceTB/SmolVLM-256M-Instruct".
        revision: of a Hub id: branch, tag or commit.
        dtype: of the weights; auto is that of the files.
        size: pixels of the longer side at most; larger pictures are reduced before the model's own processor sees them.
        max_tokens: that an answer may have; one that is cut off there is no caption.
    """

    model: str = field(validator=text())
    revision: str | None = field(default=None, validator=optional(text()))
    dtype: str = field(default="auto", validator=one_of("auto", "float32", "bfloat16", "float16"))
    size: int = field(default=1024, validator=whole(16))
    max_tokens: int = field(default=300, validator=whole(1))
    _network: Any = field(init=False, default=None, repr=False, eq=False)
    _processor: Any = field(init=False, default=None, repr=False, eq=False)

    packages: ClassVar[tuple[str, ...]] = ("transformers",)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model and revision, and how pictures and answers are made; of a folder its name."""
        return {
            "model": Path(self.model).name if Path(self.model).is_dir() else self.model,
            "revision": self.revision,
            "dtype": self.dtype,
            "size": self.size,
            "max_tokens": self.max_tokens,
        }

    def load(self, device: torch.device) -> None:
        """Read processor and weights.

        Raises:
            CheckpointError: they cannot be had, or the model takes no conversation with a picture in it.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(self.model, revision=self.revision)
            network = AutoModelForImageTextToText.from_pretrained(
                self.model, revision=self.revision, dtype=self.dtype, use_safetensors=True
            )
        except Exception as error:  # OSError, ValueError, and whatever reading a damaged file raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"'{self.model}' cannot be loaded as a vision-language model of transformers: {reason}"
            ) from error
        if not getattr(processor, "chat_template", None):
            raise CheckpointError(
                f"'{self.model}' has no chat template, so it cannot be told what to say of a picture; "
                "choose a model that was tuned to follow instructions"
            )
        self._processor, self._network = processor, network.to(device).eval()

    @torch.inference_mode()
    def caption(self, image: Image.Image, instruction: str) -> Caption:
        """Ask the model.

        Raises:
            DataError: the model cannot take this picture.
        """
        if self._network is None:
            raise ConfigError("the captioner transformers has no weights yet: call load(device) before caption")
        try:
            given = self._inputs(shrunk(image, self.size), instruction)
            read = int(given["input_ids"].shape[1])
            tokens = self._network.generate(
                **given, max_new_tokens=self.max_tokens, do_sample=False, temperature=None, top_p=None, top_k=None
            )[0, read:]
        except (RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"'{self.model}' cannot caption the picture: {reason}") from error
        said = self._processor.decode(tokens, skip_special_tokens=True).strip()
        written = len(tokens)
        if written >= self.max_tokens and not self._ended(tokens):
            reason = f"the answer was cut off at max_tokens: {said[-80:]!r}"
            return Caption("", False, reason, read, written, self.model)
        return Caption(said, False, "" if said else "the answer was empty", read, written, self.model)

    def _inputs(self, image: Image.Image, instruction: str) -> Any:
        """What the network takes: a conversation of one turn, with the picture before the words."""
        content = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
        given = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return given.to(self._network.device, dtype=self._network.dtype)

    def _ended(self, tokens: torch.Tensor) -> bool:
        """Whether the model itself ended its answer."""
        ends = self._network.generation_config.eos_token_id
        return bool(len(tokens)) and int(tokens[-1]) in (ends if isinstance(ends, list) else [ends])
