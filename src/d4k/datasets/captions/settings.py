"""How a dataset is captioned."""

from __future__ import annotations

from attrs import field, frozen

from d4k.config import flag, number, optional, text, whole

__all__ = ["INSTRUCTION", "Captioning"]

INSTRUCTION = (
    "Describe what this photograph shows, directly and briefly. Begin with the scene itself, and not with an "
    "introductory phrase such as 'The image shows'."
)
"""What captioners are asked unless something else is given.

Source: Diffusion-4K, Zhang et al. 2025, arXiv 2503.18352, section 3: captions that describe the scene directly and
briefly, without an introductory phrase; the words are ours.
"""


@frozen(kw_only=True)
class Captioning:
    """Settings of captioning.

    Args:
        name: of the captioner, as it is kept with each caption.
        instruction: what to say of a picture.
        concurrency: pictures that are captioned at once, where the captioner allows it.
        budget: dollars that all answers in the log may have cost together, those of earlier runs among them.
        limit: pictures to ask about at most; None is all.
        again: caption anew what another captioner, instruction or person wrote before; corrections stay.
        device: that a local captioner computes on; None chooses.
    """

    name: str = field(validator=text())
    instruction: str = field(default=INSTRUCTION, validator=text())
    concurrency: int = field(default=8, validator=whole(1, 1024))
    budget: float | None = field(default=None, validator=optional(number(0)))
    limit: int | None = field(default=None, validator=optional(whole(1)))
    again: bool = field(default=False, validator=flag())
    device: str | None = field(default=None, validator=optional(text()))
