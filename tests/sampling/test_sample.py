"""Stages against independent references: plain generation, an integration written out, and diffusers' own pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from attrs import evolve
from diffusers import (
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FluxImg2ImgPipeline,
    StableDiffusion3Img2ImgPipeline,
    UniPCMultistepScheduler,
)
from torch import Tensor

from d4k import CleanEstimate, ConfigError, Pipeline, create
from d4k.images import Lanczos, to_float, to_uint8
from d4k.sampling import (
    Batch,
    SamplingSettings,
    SamplingStep,
    Stage,
    sample,
    sample_latents,
    sample_stages,
    starting_noise,
    steps_of,
)
from d4k.sampling.loop import restart_of, schedule
from d4k.sampling.sample import enlarged_latents

STOCK = {"tiny-sd3": StableDiffusion3Img2ImgPipeline, "tiny-flux": FluxImg2ImgPipeline}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
SOLVERS = {
    "euler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "heun": FlowMatchHeunDiscreteScheduler(shift=3.0),
    "multistep": DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0),
    "singlestep": DPMSolverSinglestepScheduler(**FLOW, flow_shift=3.0, lower_order_final=True),
    "unipc": UniPCMultistepScheduler(**FLOW, flow_shift=3.0),
}
SMALL = Stage(16, 12, 3, 2.0)
STAGED = SamplingSettings(32, 24, 4, 2.0, restart=0.6, earlier=(SMALL,))
noisy_warning = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", params=sorted(STOCK))
def pipe(request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline.from_pretrained(request.param, device="cpu")


def through(backbone: Any, settings: SamplingSettings, pictures: Any = None, **more: Any) -> list[list[Tensor]]:
    """The pictures after each stage, of one prompt and seed."""
    batch = Batch(["a"], [3], pictures)
    return list(sample_stages(backbone, batch, settings, create("upscaler", settings.upscaler), **more))


def test_one_stage_is_plain_generation(pipe: Pipeline) -> None:
    """Bit for bit: the stages are the loop's own latents, decoded."""
    settings = SamplingSettings(96, 64, 3, 3.0)
    noise = starting_noise(pipe.backbone, [3], 96, 64)
    latents = sample_latents(pipe.backbone, ["a"], noise, settings)
    [[picture]] = through(pipe.backbone, settings)
    assert torch.equal(picture, to_uint8(pipe.backbone.decode(latents)[0].detach()))


def test_a_restart_at_one_is_plain_generation_at_that_size(pipe: Pipeline) -> None:
    """The picture before has no part in it, and the alignment is off."""
    last = SamplingSettings(96, 96, 3, 3.0)
    staged = through(pipe.backbone, evolve(last, earlier=(Stage(64, 64, 2, 3.0),)))
    assert torch.equal(staged[-1][0], through(pipe.backbone, last)[0][0])


@noisy_warning
@pytest.mark.parametrize("name", ["multistep", "unipc"])
def test_a_restart_at_one_is_noise_alone_where_the_first_level_is_below(backbone: Any, name: str) -> None:
    """Nothing of the picture leaks in, though such a schedule begins at 0.9996."""
    backbone.scheduler = made(SOLVERS[name])
    assert schedule(backbone, STAGED, restart=True)[1][0] < 1
    noise, clean = torch.randn(2, 1, 12, 12, 16, generator=torch.Generator().manual_seed(1))
    settings = evolve(STAGED, restart=1.0, earlier=())
    found = sample_latents(backbone, ["a"], noise, settings, clean=100 * clean)
    assert torch.equal(found, sample_latents(backbone, ["a"], noise, settings))


@torch.no_grad()
@pytest.mark.parametrize("strength", [1.0, 0.7, 0.5, 0.25])
def test_two_stages_equal_diffusers_image_to_image(pipe: Pipeline, strength: float) -> None:
    """Same weights, latents of the enlarged picture, noise and schedule: latents within 1e-4, and the pixels."""
    backbone = pipe.backbone
    stock = STOCK[pipe.loaded.weights.name].from_pipe(backbone.pipeline)
    stock.set_progress_bar_config(disable=True)
    settings = SamplingSettings(128, 96, 5, 2.0, earlier=(Stage(64, 48, 2, 2.0),))
    first = next(sample_stages(backbone, Batch(["a tabby cat"], [3]), settings, Lanczos()))
    clean = enlarged_latents(backbone, first, settings, Lanczos())
    seen: list[Tensor] = []

    def keep(_: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen.append(values["latents"].clone())
        return values

    expected = stock(
        prompt="a tabby cat", image=clean, strength=strength, num_inference_steps=5, guidance_scale=2.0, height=96,
        width=128, generator=torch.Generator().manual_seed(3), output_type="latent", callback_on_step_end=keep,
        **({} if stock.tokenizer_2 is None else {"max_sequence_length": text_tokens(pipe)}),
    ).images  # fmt: skip
    restart = restart_of(backbone, settings, strength)
    found: list[SamplingStep] = []
    staged = evolve(settings, restart=restart)
    list(sample_stages(backbone, Batch(["a tabby cat"], [3]), staged, Lanczos(), on_step=found.append))

    ours = [step.noisy for step in found if step.stage == 2]
    assert len(ours) == len(seen) == -(-5 * strength // 1)
    assert (unpacked(expected, clean) - ours[-1]).abs().max() < 1e-4
    for one, other in zip(ours, seen, strict=True):
        assert (unpacked(other, clean) - one).abs().max() < 1e-4
    assert strength == 1 or (ours[-1] - clean).abs().mean() > 0.01


def text_tokens(pipe: Pipeline) -> int:
    """What the tiny models pad prompts to, where diffusers' own default is another."""
    return int(pipe.backbone.trained_options.get("text_tokens", 256))


def unpacked(latent: Tensor, like: Tensor) -> Tensor:
    """Latents of a stock pipeline as (B, C, h, w)."""
    if latent.ndim == 4:
        return latent
    grid = latent.transpose(1, 2).reshape(1, -1, like.shape[2] // 2, like.shape[3] // 2)
    return torch.nn.functional.pixel_shuffle(grid, 2)


def made(like: Any) -> Any:
    """The method of a backbone that makes schedulers of this kind."""

    def scheduler(steps: int, height: int, width: int, shift: float | None = None) -> Any:
        one = type(like).from_config(like.config)
        one.set_timesteps(steps)
        return one

    return scheduler


@noisy_warning
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("restart", [1.0, 0.9, 0.5, 0.25])
def test_every_solver_begins_in_the_middle(backbone: Any, name: str, restart: float) -> None:
    """On a straight flow each arrives at the picture from any noise level of its schedule, by the steps that remain."""
    backbone.scheduler = made(SOLVERS[name])
    clean, noise = torch.randn(2, 1, 12, 12, 16, generator=torch.Generator().manual_seed(0))
    backbone.velocity = lambda *_: noise - clean
    settings = evolve(STAGED, steps=12, restart=restart, earlier=())
    seen: list[SamplingStep] = []
    found = sample_latents(backbone, ["a"], noise, settings, clean=clean, on_step=seen.append)
    short = 1 - max(step.sigma for step in seen) if restart == 1 else 0
    assert (found - clean).abs().max() < short * (noise - clean).abs().max() + 1e-4
    assert seen[0].sigma <= restart
    assert restart == 1 or seen[0].sigma > restart - 0.2
    assert len(seen) < (23 if name == "heun" else 12) or restart == 1
    torch.testing.assert_close(seen[-1].clean, found, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_stage_is_an_euler_integration_from_the_renoised_picture(backbone: Any) -> None:
    """Written out: enlarge, encode, mix with noise at the first level at or below the restart, step to 0."""
    small = through(backbone, evolve(STAGED, **sized(SMALL), earlier=(), restart=1.0))[0][0]
    enlarged = Lanczos()(to_float(small)[None], 24, 32)
    clean, noise = backbone.encode_image(enlarged), starting_noise(backbone, [3], 32, 24)
    text = backbone.encode_text(["a"], "")
    levels = [level for level in backbone.scheduler(4, 24, 32).sigmas.tolist() if level <= 0.6]
    latent = (1 - levels[0]) * clean + levels[0] * noise
    for level, following in pairwise(levels):
        latent = latent + (following - level) * backbone.velocity(latent, torch.tensor([level]), text, 2.0)
    found = through(backbone, STAGED)[-1][0]
    assert (found.int() - to_uint8(backbone.decode(latent)[0]).int()).abs().max() <= 1


def sized(stage: Stage) -> dict[str, Any]:
    return {"width": stage.width, "height": stage.height, "steps": stage.steps}


def test_a_kept_stage_is_gone_on_with_bit_identically(backbone: Any) -> None:
    """The 8-bit picture is all that a stage takes over."""
    first, second = through(backbone, STAGED)
    assert torch.equal(through(backbone, evolve(STAGED, earlier=()), first)[0][0], second[0])


def test_steps_are_counted_over_all_stages(backbone: Any) -> None:
    """A callback sees one count, the stage, and the latents of that stage."""
    seen: list[SamplingStep] = []
    through(backbone, STAGED, on_step=seen.append)
    taken = steps_of(backbone, STAGED)
    assert taken == [3, 2]
    assert [(s.step, s.steps, s.stage, s.stages) for s in seen] == [
        (1, 5, 1, 2), (2, 5, 1, 2), (3, 5, 1, 2), (4, 5, 2, 2), (5, 5, 2, 2),
    ]  # fmt: skip
    assert [tuple(s.noisy.shape[2:]) for s in seen] == [(6, 8)] * 3 + [(12, 16)] * 2


def test_a_model_is_told_how_far_the_schedule_is(backbone: Any) -> None:
    """Also where a stage takes its last part only; text is encoded once for all stages."""
    told, encoded = [], []
    velocity, encode = type(backbone).velocity, type(backbone).encode_text
    backbone.velocity = lambda *given: (told.append(given[-1]), velocity(backbone, *given))[1]
    backbone.encode_text = lambda *given: (encoded.append(given), encode(backbone, *given))[1]
    through(backbone, STAGED)
    assert told == [1 / 3, 2 / 3, 1, 3 / 4, 1]
    assert encoded == [(["a"], "")]


def test_a_batch_is_the_same_pictures_as_alone(backbone: Any) -> None:
    """In every stage a picture depends on its own prompt and seed."""
    together = list(sample(backbone, ["a", "b", "c"], [1, 2, 3], STAGED, batch_size=2))
    for picture, prompt, seed in zip(together, "abc", (1, 2, 3), strict=True):
        [alone] = sample(backbone, [prompt], [seed], STAGED)
        assert (picture.int() - alone.int()).abs().max() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(backbone: Any, training: bool) -> None:
    """Also where a stage fails, or is the last one that is asked for."""
    backbone.trainable.train(training)
    modes: list[bool] = []
    through(backbone, STAGED, on_step=lambda _: modes.append(backbone.trainable.training))
    assert modes == [False] * 5
    assert backbone.trainable.training is training
    stages = sample_stages(backbone, Batch(["a"], [0]), STAGED, Lanczos())
    next(stages)
    stages.close()
    assert backbone.trainable.training is training
    with pytest.raises(ConfigError, match="leaves no step to take"):
        through(backbone, evolve(STAGED, restart=0.0005))
    assert backbone.trainable.training is training


def test_a_restart_without_a_step_is_refused_before_the_first_stage(backbone: Any) -> None:
    seen: list[SamplingStep] = []
    with pytest.raises(ConfigError, match=r"restart 0.0005 leaves no step to take: .* 0.001; give a higher"):
        through(backbone, evolve(STAGED, restart=0.0005), on_step=seen.append)
    assert not seen


def test_an_upscaler_of_another_size_is_refused(backbone: Any) -> None:
    """It is named."""
    batch = Batch(["a"], [0])
    with pytest.raises(ConfigError, match=r"upscaler 'lanczos' returned \(1, 3, 12, 16\) where \(1, 3, 24, 32\)"):
        list(sample_stages(backbone, batch, STAGED, lambda pixels, height, width: pixels))


def test_an_upscaler_that_gives_no_numbers_is_refused(backbone: Any) -> None:
    """And not the model that would be fed with them."""

    def broken(pixels: Tensor, height: int, width: int) -> Tensor:
        return torch.full((1, 3, height, width), torch.nan)

    with pytest.raises(ConfigError, match="upscaler 'lanczos' returned values that are no numbers"):
        list(sample_stages(backbone, Batch(["a"], [0]), STAGED, broken))


def test_the_step_cache_holds_for_one_stage() -> None:
    """A stage does not go on with blocks of the smaller one: it is the same alone."""
    model = Pipeline.from_pretrained("tiny-flux", device="cpu", step_cache="first-block:0.3").backbone
    settings = SamplingSettings(128, 128, 6, 2.0, restart=0.8, earlier=(Stage(64, 64, 6, 2.0),))
    first, second = through(model, settings)
    assert torch.equal(through(model, evolve(settings, earlier=()), first)[0][0], second[0])


def test_the_alignment_holds_a_stage_to_its_picture(backbone: Any) -> None:
    """At full strength a stage is near the enlarged picture; the first one has nothing to hold to."""
    free = through(backbone, STAGED)
    held = through(backbone, evolve(STAGED, alignment=1.0, cutoff=1.0))
    assert torch.equal(free[0][0], held[0][0])
    goal = to_uint8(Lanczos()(to_float(free[0][0])[None], 24, 32)[0]).int()
    away, kept = ((found[1][0].int() - goal).abs().float().mean() for found in (free, held))
    assert kept < 0.6 * away


def test_a_guide_comes_after_the_alignment_and_is_asked_in_every_stage(backbone: Any) -> None:
    """It is shown what the alignment chose."""
    seen: list[CleanEstimate] = []

    def guide(estimate: CleanEstimate) -> Tensor:
        seen.append(estimate)
        return estimate.clean

    held = through(backbone, evolve(STAGED, alignment=1.0, cutoff=1.0), guide=guide)
    assert [(one.step, one.steps) for one in seen] == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]
    assert torch.equal(held[1][0], through(backbone, evolve(STAGED, alignment=1.0, cutoff=1.0))[1][0])
    free: list[CleanEstimate] = []
    through(backbone, STAGED, guide=lambda one: (free.append(one), one.clean)[1])
    assert torch.equal(seen[3].noisy, free[3].noisy)
    assert not torch.allclose(seen[3].clean, free[3].clean)


def test_stages_are_encoded_in_bands_within_the_memory_given() -> None:
    """With little memory the latents of an enlarged picture are those of one pass."""
    pictures = [to_uint8(torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(0)) / 2)]
    stage = SamplingSettings(192, 256, 4, 2.0)
    found: list[Tensor] = []
    bound = 0.01  # of 0.025 that one pass takes
    for memory in (None, bound):
        model = Pipeline.from_pretrained("tiny-sd3", device="cpu", memory_gb=memory).backbone
        found.append(enlarged_latents(model, pictures, stage, Lanczos()))
    assert (found[0] - found[1]).abs().max() < 1e-5


def pictures_of(count: int) -> Sequence[Tensor]:
    return [torch.full((3, 12, 16), 10 * place, dtype=torch.uint8) for place in range(count)]


def test_each_picture_begins_with_its_own(backbone: Any) -> None:
    """Images are given out in the order of the prompts, over the batches."""
    settings = evolve(STAGED, earlier=())
    together = list(sample(backbone, ["a"] * 3, [1] * 3, settings, pictures=pictures_of(3), batch_size=2))
    for picture, image in zip(together, pictures_of(3), strict=True):
        [alone] = sample(backbone, ["a"], [1], settings, pictures=[image])
        assert (picture.int() - alone.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[2])
