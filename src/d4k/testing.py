"""The contracts of the four protocols as checks: run one line against your implementation.

Each check raises AssertionError with a sentence that says which part of the contract does not hold.
"""

from __future__ import annotations

from itertools import pairwise

import attrs
import torch

from d4k.images import open_picture
from d4k.protocols import Backbone, Dataset, FlowStep, Loss, Metric, Sample

__all__ = ["check_backbone", "check_dataset", "check_loss", "check_metric", "check_shapes"]


def check_loss(loss: Loss) -> None:
    """Check a loss: shape, dtype, independence of samples, gradient, zero at the truth, any float dtype.

    Raises:
        AssertionError: the contract does not hold.
    """
    _check_options(loss)
    generator = torch.Generator().manual_seed(0)
    clean, noise, wrong = (torch.randn(3, 4, 16, 12, generator=generator) for _ in range(3))
    step = FlowStep(clean, noise, torch.tensor([0.1, 0.5, 0.9]))
    predicted = (step.velocity + wrong).requires_grad_()
    value = loss(predicted, step)
    assert value.shape == (3,), f"a loss returns one value a sample: (3,), got {tuple(value.shape)}"
    assert value.dtype == torch.float32, f"a loss returns float32, got {value.dtype}"
    assert torch.isfinite(value).all(), "a loss is finite for finite input"
    assert (value > 0).all(), "a loss is above zero where the prediction is wrong"
    torch.autograd.backward(value.sum())
    assert predicted.grad is not None, "a loss has a gradient with respect to the prediction"
    assert predicted.grad.abs().sum() > 0, "the gradient of a loss is not zero where the prediction is wrong"
    assert loss(step.velocity, step).abs().max() < 1e-6, "a loss is zero where the prediction is right"
    alone = loss(predicted[1:2], FlowStep(clean[1:2], noise[1:2], step.sigma[1:2]))
    assert torch.allclose(alone, value[1:2], rtol=1e-4), "the loss of a sample does not depend on its batch"
    half = FlowStep(clean.bfloat16(), noise.bfloat16(), step.sigma)
    assert loss(predicted.detach().bfloat16(), half).dtype == torch.float32, "a loss of bfloat16 input is float32"


def check_dataset(dataset: Dataset) -> None:
    """Check a dataset: length, samples with unique ids and captions, pictures that open, IndexError past the end.

    Raises:
        AssertionError: the contract does not hold.
    """
    _check_options(dataset)
    count = len(dataset)
    assert count > 0, "the dataset to check holds at least one picture"
    samples = [dataset[index] for index in range(count)]
    assert all(isinstance(s, Sample) for s in samples), "a dataset yields d4k.Sample"
    assert len({s.id for s in samples}) == count, "ids are unique"
    assert all(isinstance(s.caption, str) for s in samples), "captions are strings"
    assert dataset[0] == samples[0], "asking twice gives the same sample"
    assert open_picture(samples[0].source, label=samples[0].id).mode == "RGB", "pictures open as RGB"
    try:
        dataset[count]
    except IndexError:
        return
    raise AssertionError("an index past the end raises IndexError")


def check_metric(metric: Metric, size: int = 128) -> None:
    """Check a metric of single images: needs, direction, unit, reset, and that it counts every image.

    Args:
        metric: whose `needs` are within image, prompt and reference.
        size: pixels a side of the test images.

    Raises:
        AssertionError: the contract does not hold.
    """
    _check_options(metric)
    assert metric.needs <= {"image", "file", "prompt", "reference"}, f"unknown needs: {sorted(metric.needs)}"
    assert metric.higher_is_better in (True, False, None), "higher_is_better is True, False or None"
    assert isinstance(metric.unit, str), "unit is a string"
    generator = torch.Generator().manual_seed(0)
    rough = torch.randint(0, 256, (1, 3, size, size), generator=generator, dtype=torch.uint8)
    smooth = torch.arange(size).expand(1, 3, size, size).mul(255 / size).to(torch.uint8)
    first, other = _measure(metric, rough), _measure(metric, smooth)
    assert _measure(metric, rough) == first, "reset forgets: the same image scores the same again"
    both = _measure(metric, rough, smooth)
    assert both not in (first, other), "every image counts"


def _measure(metric: Metric, *images: torch.Tensor) -> float:
    metric.reset()
    for image in images:
        inputs = {"image": image, "prompt": ["a test"], "reference": image.flip(-1)}
        metric.update(**{need: inputs[need] for need in metric.needs})
    result = metric.compute()
    return float(next(iter(result.values())) if isinstance(result, dict) else result)


def check_backbone(backbone: Backbone) -> None:
    """Check a backbone loaded in float32: latents, text, velocity, gradient, scheduler, settable trainable module.

    Raises:
        AssertionError: the contract does not hold.
    """
    _check_options(backbone)
    spec = backbone.latent
    size = spec.granularity * 4
    parameter = next(backbone.trainable.parameters())
    pixels = torch.linspace(-1, 1, size).expand(2, 3, size, size).to(parameter)
    latent = backbone.encode_image(pixels)
    shape = (2, spec.channels, size // spec.downscale, size // spec.downscale)
    assert latent.shape == shape, f"encode_image returns {shape}, got {tuple(latent.shape)}"
    assert torch.equal(backbone.encode_image(pixels), latent), "encode_image is deterministic"
    assert backbone.decode(latent).shape == pixels.shape, "decode returns pixels of the size that was encoded"
    text = backbone.encode_text(["one", "two"])
    assert len(text) == 2, "encode_text encodes every prompt"
    assert len(text[1:]) == 1, "a conditioning can be sliced"
    sigma = torch.tensor([0.3, 0.8]).to(parameter.device)
    velocity = backbone.velocity(latent, sigma, text)
    assert velocity.shape == shape, f"velocity has the shape of the latent, {shape}, got {tuple(velocity.shape)}"
    alone = backbone.velocity(latent[1:], sigma[1:], text[1:])
    assert torch.allclose(alone, velocity[1:], atol=1e-3), "the velocity of a sample does not depend on its batch"
    assert backbone.velocity(latent, sigma, text, 3.0).shape == shape, "velocity takes a guidance scale"
    torch.autograd.backward(velocity.float().square().mean())
    assert any(p.grad is not None for p in backbone.trainable.parameters()), "the trainable module receives a gradient"
    backbone.trainable.zero_grad(set_to_none=True)
    _check_empty_prompt(backbone, latent, sigma)
    _check_scheduler(backbone, size)
    module, calls = backbone.trainable, []

    class Wrapper(torch.nn.Module):
        def forward(self, *args: object, **kwargs: object) -> object:
            calls.append(1)
            return module(*args, **kwargs)

    backbone.trainable = Wrapper()
    try:
        backbone.velocity(latent, sigma, text)
    finally:
        backbone.trainable = module
    assert calls, "velocity goes through whatever trainable was set to"
    assert module in backbone.components.values(), "components has the denoiser, beside all other models"


def check_shapes(backbone: Backbone) -> None:
    """Check a backbone that was loaded on the device "meta", as planning does: text, latents and velocity have shapes.

    Raises:
        AssertionError: the contract does not hold.
    """
    _check_options(backbone)
    weights = [tensor for part in backbone.components.values() for tensor in part.parameters()]
    assert all(tensor.is_meta for tensor in weights), "on the device meta no weight is read"
    spec = backbone.latent
    for prompts in (["one"], ["one", "two"]):
        text = backbone.encode_text(prompts, "")
        assert len(text) == len(prompts), "encode_text gives the shapes of every prompt on the device meta"
        assert all(t.is_meta for t in text.tensors.values()), "encode_text gives tensors on the device meta"
        noisy = torch.empty(len(prompts), spec.channels, 4 * spec.patch, 4 * spec.patch, device="meta")
        noisy = noisy.to(next(backbone.trainable.parameters()).dtype)
        velocity = backbone.velocity(noisy, noisy.new_empty(len(prompts)), text, 3.0)
        assert velocity.shape == noisy.shape, "velocity has the shape of the latent on the device meta"
        assert velocity.is_meta, "velocity stays on the device meta"


@torch.no_grad()
def _check_empty_prompt(backbone: Backbone, latent: torch.Tensor, sigma: torch.Tensor) -> None:
    # guidance does nothing where prompt and negative prompt are encoded alike
    alone, beside = backbone.encode_text(["", ""]), backbone.encode_text(["", ""], "")
    plain, guided = (backbone.velocity(latent, sigma, text, 3.0) for text in (alone, beside))
    assert torch.allclose(plain, guided, atol=1e-3), "an empty prompt is encoded as an empty negative prompt is"


def _check_scheduler(backbone: Backbone, size: int) -> None:
    scheduler = backbone.scheduler(5, size, size)
    timesteps = scheduler.timesteps.cpu()
    assert len(timesteps) == 5, "the scheduler has the steps that were asked for"
    assert all(a > b for a, b in pairwise(timesteps)), "timesteps fall"
    drift = (scheduler.sigmas[:-1].cpu() * 1000 - timesteps).abs().max()
    assert drift <= 1, "the scheduler's sigmas are noise levels of flow matching: its timesteps / 1000"
    assert scheduler is not backbone.scheduler(5, size, size), "each call makes a scheduler: solvers keep a history"


def _check_options(component: object) -> None:
    assert attrs.has(type(component)), "a component is an attrs class: its fields are its options"
