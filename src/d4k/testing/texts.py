"""What of the contract concerns texts: prompts, masks, negative prompts and guidance."""

from __future__ import annotations

import torch
from attrs import evolve
from torch import Tensor

from d4k.protocols import Conditioning
from d4k.testing.attempt import differ, distance, like
from d4k.testing.trial import PROMPTS, Trial, ignored_warning

__all__ = ["check_texts"]

NEGATIVE = "a blurred street"
STRONG = 5.0


def check_texts(trial: Trial) -> None:
    """Check that every text has its effect, alone and in a batch, and guidance the right one."""
    text = trial.text(PROMPTS)
    one, other = trial.text(PROMPTS[:1]), trial.text(PROMPTS[1:])
    shapes = [{name: tuple(t.shape) for name, t in single.tensors.items()} for single in (one, other)]
    assert shapes[0] == shapes[1], (
        f"texts of any length have tensors of the same shapes, so that they can be batched: "
        f"got {shapes[0]} and {shapes[1]}"
    )
    velocities = [trial.velocity(single, count=1) for single in (one, other)]
    assert differ(*velocities), "the text is ignored: two prompts give the same velocity"
    assert like(trial.velocity(text[1:], count=1), velocities[1]), "the text of a prompt does not depend on its batch"
    assert differ(trial.velocity(text[1:], count=1), trial.velocity(text[:1], count=1)), "each prompt has its own text"
    _check_tensors(trial, one, None, "")
    _check_masks(trial, one)
    _check_empty_prompt(trial)
    _check_guidance(trial)


def _check_tensors(trial: Trial, text: Conditioning, guidance: float | None, prefix: str) -> None:
    """Every tensor of a conditioning reaches the velocity, or it would not be there."""
    before = trial.velocity(text, guidance, count=1)
    for name, tensor in text.tensors.items():
        if not name.startswith(prefix) or "mask" in name or not tensor.is_floating_point():
            continue
        changed = evolve(text, tensors={**text.tensors, name: tensor.flip(-1) + 1})
        after = trial.velocity(changed, guidance, count=1)
        assert differ(before, after), f"'{name}' of the conditioning is ignored: another one gives the same velocity"


def _check_masks(trial: Trial, text: Conditioning) -> None:
    """A masked token has no effect, and a mask that masks more has one."""
    before = trial.velocity(text, count=1)
    for name, mask in text.tensors.items():
        if "mask" not in name or mask.ndim != 2:
            continue
        used = mask[0].to(torch.bool).nonzero().flatten()
        if len(used) > 1:
            fewer = mask.clone()
            fewer[:, used[-1]] = 0
            after = trial.velocity(evolve(text, tensors={**text.tensors, name: fewer}), count=1)
            assert differ(before, after), f"'{name}' of the conditioning is ignored: another mask changes nothing"
        for states, tensor in text.tensors.items():
            if tensor.shape[:2] == mask.shape and tensor.ndim == 3 and states.startswith(name.partition("mask")[0]):
                padded = torch.where(mask.bool()[..., None], tensor, torch.full_like(tensor, 0.5))
                after = trial.velocity(evolve(text, tensors={**text.tensors, states: padded}), count=1)
                assert like(before, after), f"the tokens of '{states}' that '{name}' masks have an effect"


def _check_empty_prompt(trial: Trial) -> None:
    # guidance does nothing where prompt and negative prompt are encoded alike
    alone, beside = trial.text(["", ""]), trial.text(["", ""], "")
    plain, guided = (trial.velocity(text, 3.0) for text in (alone, beside))
    assert plain.shape == guided.shape == trial.latent.shape, "velocity takes a guidance scale"
    assert like(plain, guided), "an empty prompt is encoded as an empty negative prompt is"


def _check_guidance(trial: Trial) -> None:
    text, plain = trial.text(PROMPTS, ""), trial.text(PROMPTS)
    steered = _reacts_to_negative(trial)
    guided = trial.velocity(text, STRONG)
    alone = trial.velocity(text[1:], STRONG, count=1)
    assert like(alone, guided[1:]), "the velocity of a sample with guidance does not depend on its batch"
    if not steered and trial.backbone.defaults.embedded_guidance is None:
        return  # a model without any guidance, which it says by its warning
    assert differ(guided, trial.velocity(text, 3.0)), "guidance is ignored: another scale gives the same velocity"
    if steered:
        assert like(trial.velocity(text), trial.velocity(plain)), (
            "without a guidance scale, as in training, a negative prompt has no effect"
        )
        _check_sense(trial, guided)


def _reacts_to_negative(trial: Trial) -> bool:
    """Whether a negative prompt has an effect; where it has none, the backbone warns."""
    results = [trial.velocity(trial.text(PROMPTS, negative), STRONG) for negative in ("", NEGATIVE)]
    if differ(*results):
        return True
    assert ignored_warning(trial.backbone, NEGATIVE), (
        "the negative prompt is ignored; use it, or warn in encode_text that this model has none"
    )
    return False


def _check_sense(trial: Trial, guided: Tensor) -> None:
    """Guidance leads from the negative prompt to the prompt and beyond, whatever length it is brought to."""
    wanted, unwanted = trial.velocity(trial.text(PROMPTS)), trial.velocity(trial.text(["", ""]))
    if distance(wanted, unwanted) < 1e-5:
        return  # lost in rounding
    towards = ((guided - wanted).double() * (wanted - unwanted).double()).sum()
    assert towards > 0, "guidance leads away from the negative prompt; here prompt and negative prompt are exchanged"
