"""Twenty-seven faults that authors make, planted in parts that keep the contract: which of them the checks see.

A fault is a small change of a working backbone, loss, metric or dataset. `MISSED` names those that pass every check,
and why nothing can be done about them; a test holds that they still pass, so that the list stays true.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from attrs import define, evolve, frozen
from PIL import Image
from torch import Tensor
from torch.nn import functional

from d4k import Conditioning, FlowStep, Pipeline, Placement, Sample, SamplingDefaults
from d4k.testing import check_against_diffusers, check_backbone, check_dataset, check_loss, check_metric

CPU = Placement(torch.device("cpu"), torch.float32)
compare = partial(check_against_diffusers, num_inference_steps=2, max_sequence_length=24, guidance_scale=3.0)


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    names = ("tiny-sd3", "tiny-flux")
    return {name: Pipeline.from_pretrained(name, device="cpu", text_tokens=24).backbone for name in names}


def plant(original: Any, **members: Any) -> Any:
    """A loaded backbone like `original`, of a subclass with other members; each is made of the original class."""
    kind = type(original)
    broken = type(f"Planted{kind.__name__}", (kind,), {name: make(kind) for name, make in members.items()})
    made = broken(**{f.alias: getattr(original, f.name) for f in attrs.fields(kind) if f.init})
    made.load(CPU)
    return made


def known(name: str, change: Callable[[Any], Any]) -> Callable[[Any], property]:
    """A property of the original class, changed."""
    return lambda kind: property(lambda self: change(getattr(kind, name).fget(self)))


def velocity(change: Callable[..., Tensor]) -> Callable[[Any], Any]:
    """`velocity` through `change(original, noisy, sigma, text, guidance)`."""

    def make(kind: Any) -> Any:
        def changed(
            self: Any, noisy: Tensor, sigma: Tensor, text: Any, guidance: float | None = None, progress: Any = None
        ) -> Tensor:
            return change(partial(kind.velocity, self), noisy, sigma, text, guidance)

        return changed

    return make


def without(text: Conditioning, *names: str) -> Conditioning:
    return Conditioning({k: torch.zeros_like(v) if k in names else v for k, v in text.tensors.items()})


def exchanged(text: Conditioning) -> Conditioning:
    pairs = {"text": "negative", "negative": "text"} if "negative" in text.tensors else {}
    return Conditioning({name: text.tensors[pairs.get(name, name)] for name in text.tensors})


def swapped(call: Any, noisy: Tensor, sigma: Tensor, text: Any, guidance: float | None) -> Tensor:
    return call(noisy, sigma, text if guidance is None else exchanged(text), guidance)  # type: ignore[no-any-return]


def guided_always(call: Any, noisy: Tensor, sigma: Tensor, text: Any, guidance: float | None) -> Tensor:
    return call(noisy, sigma, text, 2.0 if guidance is None else guidance)  # type: ignore[no-any-return]


def with_shift(value: Callable[[float | None], float | None]) -> Callable[[Any], Any]:
    def make(kind: Any) -> Any:
        return lambda self, steps, height, width, shift=None: kind.scheduler(self, steps, height, width, value(shift))

    return make


def ignoring_negative(kind: Any) -> Any:
    return lambda self, prompts, negative=None: kind.encode_text(self, prompts, None if negative is None else "")


def sampled_posterior(kind: Any) -> Any:
    return lambda self, pixels: (z := kind.encode_image(self, pixels)) + 0.1 * torch.randn_like(z)


def first_weights(kind: Any) -> Any:
    """`save` of what was read, and not of what was trained."""

    def save(self: Any, folder: Path) -> None:
        untouched = kind(seed=self.seed)
        untouched.load(CPU)
        untouched.save(folder)

    return save


def scaled(method: str, before: float = 1.0, after: float = 1.0, offset: float = 0.0) -> Callable[[Any], Any]:
    return lambda kind: lambda self, x: getattr(kind, method)(self, x * before) * after + offset


def padded(kind: Any) -> Any:
    """Texts of eight tokens, with a mask."""

    def encode_text(self: Any, prompts: list[str], negative: str | None = None) -> Conditioning:
        tensors = {}
        for prefix, texts in (("", prompts), ("negative_", None if negative is None else [negative] * len(prompts))):
            if texts is not None:
                words = [max(1, len(text.split())) for text in texts]
                rows = [kind.encode_text(self, (text.split() + [""] * 8)[:8]).tensors["text"] for text in texts]
                states = torch.stack(rows)
                mask = torch.arange(8, device=states.device) < torch.tensor(words, device=states.device)[:, None]
                tensors |= {f"{prefix}states": states, f"{prefix}mask": mask.float()}
        return Conditioning(tensors)

    return encode_text


def pooled(use_mask: bool) -> Callable[[Any], Any]:
    """A velocity of the mean of the tokens, of those that the mask leaves or of all."""

    def one(text: Conditioning, prefix: str) -> Tensor:
        states, mask = text.tensors[f"{prefix}states"], text.tensors[f"{prefix}mask"][..., None]
        return (states * mask).sum(1) / mask.sum(1) if use_mask else states.mean(1)

    def change(call: Any, noisy: Tensor, sigma: Tensor, text: Any, guidance: float | None) -> Tensor:
        tensors = {"text": one(text, "")}
        if "negative_states" in text.tensors:
            tensors["negative"] = one(text, "negative_")
        return call(noisy, sigma, Conditioning(tensors), guidance)  # type: ignore[no-any-return]

    return velocity(change)


@frozen
class Plain:
    """A loss made of a function."""

    function: Callable[[Tensor, FlowStep], Tensor]

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        return self.function(velocity, step)


def halves(velocity: Tensor, step: FlowStep) -> Tensor:
    """An error at half the size, which wants even sides."""
    wrong = functional.pixel_unshuffle((velocity - step.velocity).float(), 2)
    return wrong.square().flatten(1).mean(1)


@define(slots=False)
class Ratio:
    """Signal to noise of a picture against its reference; blind where it does not look at it."""

    blind: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"image", "reference"})
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "dB"

    def load(self, device: torch.device) -> None:
        """Nothing."""

    def observe(self, image: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        others = [each.flip(-1) for each in image] if self.blind else reference
        wrong = torch.stack([(a.double() - b.double()).square().mean() for a, b in zip(image, others, strict=True)])
        return 10 * torch.log10(255**2 / (wrong + 1e-9))[:, None]

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean())


@define(slots=False)
class Contrast:
    """The largest value over the deviation, which is not a number in a flat picture."""

    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    higher_is_better: ClassVar[None] = None
    unit: ClassVar[str] = ""

    def load(self, device: torch.device) -> None:
        """Nothing."""

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        grey = [each.double().flatten() for each in image]
        return torch.stack([(each.amax() - each.mean()) / each.std() for each in grey])[:, None]

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean())


@define
class Streams:
    """A dataset of one picture, whose stream is at its end after the first reading."""

    stream: io.BytesIO

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        if index:
            raise IndexError(index)
        return Sample("a", "a picture", self._open)

    def _open(self) -> io.BytesIO:
        return io.BytesIO(self.stream.read())


def stream() -> io.BytesIO:
    made = io.BytesIO()
    Image.new("RGB", (4, 4)).save(made, "PNG")
    made.seek(0)
    return made


FAKE: dict[str, tuple[dict[str, Any], str]] = {
    "text ignored": ({"velocity": velocity(lambda c, x, s, t, g: c(x, s, without(t, "text"), g))}, "text is ignored"),
    "mask ignored": ({"encode_text": padded, "velocity": pooled(False)}, "'mask' of the conditioning is ignored"),
    "guidance ignored": (
        {"velocity": velocity(lambda c, x, s, t, g: c(x, s, t, None if g is None else 2.0))},
        "guidance is ignored: another scale",
    ),
    "guidance swapped": ({"velocity": velocity(swapped)}, "prompt and negative prompt are exchanged"),
    "guidance while training": ({"velocity": velocity(guided_always)}, "a negative prompt has no effect"),
    "negative prompt ignored": ({"encode_text": ignoring_negative}, "the negative prompt is ignored"),
    "shift ignored": ({"scheduler": with_shift(lambda shift: None)}, "shift moves the noise levels; it is ignored"),
    "components without the autoencoder": (
        {"components": known("components", lambda parts: {k: v for k, v in parts.items() if k != "vae"})},
        "components has the autoencoder",
    ),
    "default size off the granularity": (
        {"defaults": known("defaults", lambda d: SamplingDefaults(size=d.size + 2))},
        "defaults.size is a multiple of 4",
    ),
    "pixels in [0, 1]": ({"decode": scaled("decode", after=0.5, offset=0.5)}, "pixels lie in .-1, 1. on the way in"),
    "posterior sampled": ({"encode_image": sampled_posterior}, "encode_image is deterministic"),
    "trained weights not saved": ({"save": first_weights}, "save writes the weights of trainable"),
    "sigma ignored": (
        {"velocity": velocity(lambda c, x, s, t, g: c(x, torch.full_like(s, 0.5), t, g))},
        "the velocity depends on sigma",
    ),
    "unknown option as trained": (
        {"trained_options": known("trained_options", lambda options: {"sead": 1})},
        "names options of the backbone, got 'sead'",
    ),
}
SD3: dict[str, tuple[dict[str, Any], Any, str]] = {
    "wrong patch": ({"latent": known("latent", lambda s: evolve(s, patch=1))}, check_backbone, "denoiser's patch_size"),
    "max_size missing": (
        {"latent": known("latent", lambda spec: evolve(spec, max_size=None))},
        check_backbone,
        "max_size is None, which says that there is no limit; then velocity",
    ),
    "encode unscaled": (
        {"encode_image": scaled("encode_image", after=1.8)},
        check_backbone,
        "the mean of encode_posterior is what encode_image returns",
    ),
    "decode unscaled": ({"decode": scaled("decode", before=0.55)}, check_backbone, "decode divides by"),
    "pooled text ignored": (
        {"velocity": velocity(lambda c, x, s, t, g: c(x, s, without(t, "pooled", "negative_pooled"), g))},
        check_backbone,
        "'pooled' of the conditioning is ignored",
    ),
    "wrong sign": ({"velocity": velocity(lambda c, *a: -c(*a))}, compare, "after step 1 of 2: sign or scale"),
    "reversed time": ({"velocity": velocity(lambda c, x, s, *a: c(x, 1 - s, *a))}, compare, "differ .* after step 1"),
    "wrong schedule": ({"scheduler": with_shift(lambda shift: shift or 7.0)}, compare, "differ .* after step 1"),
}
OTHERS: dict[str, tuple[Callable[[], None], str]] = {
    "loss for even sides": (lambda: check_loss(Plain(halves)), "velocity of .2, 4, 15, 11. must work"),
    "reference ignored": (lambda: check_metric(Ratio(True)), "another score for another reference"),  # type: ignore[arg-type]
    "flat pictures are not a number": (lambda: check_metric(Contrast()), "a score is finite"),  # type: ignore[arg-type]
}
MISSED: dict[str, tuple[dict[str, Any], str]] = {
    "an option left out of trained_options": (
        {"trained_options": known("trained_options", lambda options: {})},
        "only the author knows which options matter to what was trained",
    ),
    "max_size too small": (
        {"latent": known("latent", lambda spec: evolve(spec, max_size=32))},
        "a limit may be what the model was trained for, and not what it can compute",
    ),
}


def test_there_are_27_of_which_at_least_24_are_seen() -> None:
    """Counted, so that none is dropped when it becomes hard to see."""
    seen = len(FAKE) + len(SD3) + len(OTHERS)
    assert (seen + len(MISSED), seen >= 24) == (27, True)


@pytest.mark.parametrize("name", FAKE)
def test_fault_of_a_small_backbone_is_seen(backbone: Any, name: str) -> None:
    """By the contract alone."""
    members, sentence = FAKE[name]
    with pytest.raises(AssertionError, match=sentence):
        check_backbone(plant(backbone, **members))


@pytest.mark.parametrize("name", SD3)
def test_fault_of_a_diffusers_backbone_is_seen(loaded: dict[str, Any], name: str) -> None:
    """By the contract, or against the stock pipeline."""
    members, check, sentence = SD3[name]
    with pytest.raises(AssertionError, match=sentence):
        check(plant(loaded["tiny-sd3"], **members))


@pytest.mark.parametrize("name", OTHERS)
def test_fault_of_a_loss_or_a_metric_is_seen(name: str) -> None:
    """By its contract."""
    check, sentence = OTHERS[name]
    with pytest.raises(AssertionError, match=sentence):
        check()


@pytest.mark.parametrize("name", MISSED)
def test_fault_that_is_missed_is_missed_still(backbone: Any, name: str) -> None:
    """If this fails, the checks have learnt something: move the fault to those that are seen."""
    members, reason = MISSED[name]
    assert reason
    check_backbone(plant(backbone, **members))


def test_what_the_faults_are_planted_in_passes(backbone: Any, loaded: dict[str, Any]) -> None:
    """Otherwise a fault would be seen where there is none."""
    check_backbone(plant(backbone, encode_text=padded, velocity=pooled(True)))
    check_metric(Ratio())  # type: ignore[arg-type]
    compare(plant(loaded["tiny-sd3"]))
    check_backbone(plant(loaded["tiny-sd3"]))


def test_embedded_guidance_and_streams_are_seen_too(loaded: dict[str, Any]) -> None:
    """Two more, of kinds that are above already: guidance as an input of the model, a picture that opens once."""
    members = {"velocity": velocity(lambda c, x, s, t, g: c(x, s, t, None))}
    with pytest.raises(AssertionError, match="guidance is ignored"):
        check_backbone(plant(loaded["tiny-flux"], **members))
    with pytest.raises(AssertionError, match="a second time, as every epoch does, must work"):
        check_dataset(Streams(stream()))
