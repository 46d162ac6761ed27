"""The memory ladder on the tiny checkpoints: what each rung does to the picture, and what it says where it fails."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from safetensors.torch import load_file

from d4k import ConfigError, Pipeline, Placement, UnknownNameError
from d4k.models import computing_device, load_pipeline, place, placement, quantization, speed_up

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
CLASSES = {"tiny-sd3": diffusers.StableDiffusion3Pipeline, "tiny-flux": diffusers.FluxPipeline}


def draw(pipe: Pipeline, **settings: Any) -> np.ndarray:
    picture = pipe.generate("a tabby cat", **{"width": 64, "height": 64, "steps": 2, "guidance": 2.0, **settings})[0]
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module", params=list(CLASSES))
def plain(request: pytest.FixtureRequest) -> Pipeline:
    """A model with nothing done to it."""
    return Pipeline.from_pretrained(request.param, device="cpu")


@pytest.fixture
def flux() -> Iterator[Pipeline]:
    """A fresh `tiny-flux`; its attention back-end, which diffusers keeps for the process, is put back."""
    before = _AttentionBackendRegistry._active_backend
    yield Pipeline.from_pretrained("tiny-flux", device="cpu")
    _AttentionBackendRegistry._active_backend = before


def placed(pipe: Pipeline, offload: str) -> Any:
    """The same model again, offloaded as it would be for an accelerator, with the CPU in its place."""
    source = pipe.backbone.source
    pipeline = load_pipeline(CLASSES[pipe.loaded.model.ref.name], source, Placement(CPU, torch.float32))
    backbone = type(pipe.backbone)(source, guidance=1.0)
    backbone.attach(place(pipeline, Placement(CPU, torch.float32, offload=offload)))
    return Pipeline(backbone, pipe.loaded)


class TestOffload:
    """Weights rest elsewhere; what is computed is the same."""

    @pytest.mark.parametrize("offload", ["model", "group"])
    def test_picture_is_the_same(self, plain: Pipeline, offload: str) -> None:
        """Bit for bit, for two pictures in turn."""
        pipe = placed(plain, offload)
        for seed in (0, 1):
            assert np.array_equal(draw(pipe, seed=seed), draw(plain, seed=seed))

    def test_disk_draws_the_same_and_leaves_nothing(
        self, plain: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every part but the autoencoder has a folder of its own, which goes with the model."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        pipe = Pipeline.from_pretrained(plain.loaded.model.ref.name, device="cpu", offload="disk")
        assert np.array_equal(draw(pipe), draw(plain))
        folders = {folder.name.split("-")[1] for folder in tmp_path.iterdir() if any(folder.iterdir())}
        parts = {name for name, part in pipe.backbone.pipeline.components.items() if isinstance(part, torch.nn.Module)}
        assert folders == parts - {"vae"}
        del pipe
        gc.collect()
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("call", ["decode", "encode_image"])
    def test_autoencoder_takes_the_place_of_the_denoiser(
        self, plain: Pipeline, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """Its modules are called one by one, so that no hook of diffusers fires; it moves for all of them."""
        pipe = placed(plain, "model")
        moves, parts = [], pipe.backbone.pipeline.components
        for name in ("transformer", "vae"):
            to = parts[name].to
            monkeypatch.setattr(
                parts[name], "to", lambda device, to=to, name=name: moves.append((name, device)) or to(device)
            )
        given = torch.zeros(1, 16, 8, 8) if call == "decode" else torch.zeros(1, 3, 64, 64)
        getattr(pipe.backbone, call)(given)
        first, *_, last = [(name, str(device)) for name, device in moves]
        assert (first, last) == (("vae", "cpu:0"), ("vae", "cpu"))
        assert parts["vae"]._hf_hook.prev_module_hook.model is parts["transformer"], (
            "which is moved away, if it is there"
        )

    def test_module_that_rests_elsewhere_computes_on_its_device(self, plain: Pipeline) -> None:
        """Noise goes there, not to where the weights rest."""
        module = torch.nn.Linear(1, 1)
        assert computing_device(module) == CPU
        module._hf_hook = type("Hook", (), {"execution_device": "cuda:1"})()  # type: ignore[assignment]
        assert computing_device(module) == torch.device("cuda:1")
        assert computing_device(plain.backbone.trainable) == CPU

    @pytest.mark.parametrize("offload", ["model", "group"])
    def test_without_an_accelerator_it_is_refused(self, offload: str) -> None:
        """There is nowhere to move weights to; the message says what helps on a CPU."""
        with pytest.raises(
            ConfigError, match=f"offload='{offload}' .* this device is the CPU: .* offload='disk' or quan"
        ):
            Pipeline.from_pretrained("tiny-sd3", device="cpu", offload=offload)

    @pytest.mark.parametrize(("offload", "moved"), [("model", "enable_model_cpu_offload"), (None, "to")])
    def test_pipeline_is_told_the_device(self, offload: str | None, moved: str) -> None:
        """On an accelerator, diffusers does it."""
        calls = []

        class Recorder:
            def __getattr__(self, name: str) -> Any:
                return lambda *args, **named: calls.append((name, *args, *named.values())) or self

        place(Recorder(), Placement(CUDA, torch.float16, offload=offload))
        assert calls == [(moved, CUDA)]

    def test_training_and_saving_are_refused(self, tmp_path: Path) -> None:
        """Weights on disk are not weights to change or to write."""
        pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", offload="disk")
        with pytest.raises(ConfigError, match="cannot save a model loaded with offload='disk'"):
            pipe.save_pretrained(tmp_path / "model")
        with pytest.raises(ConfigError, match="cannot fine-tune a model loaded with offload='disk'"):
            pipe.train(dataset="sample-photos", output_dir=tmp_path / "run")


class TestQuantize:
    """Fewer bits a weight."""

    @pytest.mark.parametrize(("quantize", "levels"), [("int8", 1.0), ("float8", 3.0)])
    def test_picture_stays_close_and_weights_shrink(self, plain: Pipeline, quantize: str, levels: float) -> None:
        """To about a quarter of float32, at a fraction of a grey level."""
        pipe = Pipeline.from_pretrained(plain.loaded.model.ref.name, device="cpu", quantize=quantize)
        difference = np.abs(draw(pipe) - draw(plain))
        assert 0 < difference.mean() < levels
        assert held(pipe) < 0.5 * held(plain)

    def test_replaced_denoiser_is_quantised(self, plain: Pipeline, tmp_path: Path) -> None:
        """A folder, a file as it is, and one that has to be rewritten first."""
        folder = Path(plain.backbone.source) / "transformer"
        file = folder / "diffusion_pytorch_model.safetensors"
        torch.save(load_file(file), tmp_path / "pickle.pt")
        expected = draw(Pipeline.from_pretrained(plain.loaded.model.ref.name, device="cpu", quantize="int8"))
        for form in (folder, file, tmp_path / "pickle.pt"):
            pipe = Pipeline.from_pretrained(
                plain.loaded.model.ref.name, device="cpu", quantize="int8", transformer=form
            )
            assert np.array_equal(draw(pipe), expected), form

    def test_missing_package_is_named_with_its_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And what would work without it."""
        monkeypatch.setattr(placement, "find_spec", lambda name: True if name == "torchao" else None)
        with pytest.raises(
            ConfigError, match="'nf4' needs bitsandbytes: pip install bitsandbytes, or choose one of flo"
        ):
            Pipeline.from_pretrained("tiny-sd3", device="cpu", quantize="nf4")
        monkeypatch.setattr(placement, "find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="quantize='int8' needs torchao: pip install torchao$"):
            Pipeline.from_pretrained("tiny-sd3", device="cpu", quantize="int8")

    def test_nf4_computes_in_the_dtype_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Bitsandbytes' default would be float32."""
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.49")
        config = quantization(Placement(CUDA, torch.bfloat16, quantize="nf4"))
        assert config.load_in_4bit
        assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)

    def test_disk_is_refused_beside_it(self) -> None:
        """Diffusers cannot write quantised tensors there."""
        with pytest.raises(ConfigError, match="offload='disk' writes plain tensors"):
            Pipeline.from_pretrained("tiny-sd3", device="cpu", quantize="int8", offload="disk")

    def test_saving_is_refused(self, tmp_path: Path) -> None:
        """Its tensors are not those of the model."""
        pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", quantize="int8")
        with pytest.raises(
            ConfigError, match="cannot save a model loaded with quantize='int8': load it without quanti"
        ):
            pipe.save_pretrained(tmp_path / "model")


def held(pipe: Pipeline) -> int:
    """Bytes of a denoiser's weights."""
    tensors: list[Any] = []
    for tensor in pipe.backbone.trainable.parameters():
        names = getattr(tensor, "tensor_data_names", None)
        tensors += [tensor] if names is None else [getattr(tensor, name) for name in names]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class TestAttention:
    """diffusers' back-ends."""

    def test_native_is_what_is_used_anyway(self, flux: Pipeline) -> None:
        """Torch's scaled dot-product attention."""
        before = draw(flux)
        speed_up(flux.backbone.trainable, attention="native")
        assert np.array_equal(draw(flux), before)

    def test_back_end_reaches_the_blocks(self, flux: Pipeline) -> None:
        """Each attention of the denoiser is told."""
        speed_up(flux.backbone.trainable, attention="_native_math")
        told = {
            str(block.attn.processor._attention_backend.value) for block in flux.backbone.trainable.transformer_blocks
        }
        assert told == {"_native_math"}

    def test_unknown_one_is_named(self, flux: Pipeline) -> None:
        """With those there are."""
        with pytest.raises(UnknownNameError, match="unknown attention 'flsh'; did you mean 'flash'.* Known: .*native"):
            speed_up(flux.backbone.trainable, attention="flsh")

    def test_one_that_is_not_installed_names_its_package(self, flux: Pipeline) -> None:
        """As diffusers says it."""
        with pytest.raises(ConfigError, match=r"attention='sage' cannot be used here: .* `sageattention"):
            speed_up(flux.backbone.trainable, attention="sage")

    def test_model_that_has_no_choice_says_so(self) -> None:
        """Else the setting would be ignored."""
        with pytest.raises(ConfigError, match="SD3Transformer2DModel always uses torch's scaled dot-product attention"):
            Pipeline.from_pretrained("tiny-sd3", device="cpu", attention="native")


class TestCache:
    """First-block caching."""

    def test_threshold_decides_how_many_blocks_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """At zero all of them and the picture is the same; at infinity all of the first step and one of each other."""
        plain = Pipeline.from_pretrained("tiny-flux", device="cpu")
        expected, runs = draw(plain, steps=4), {}
        for threshold in ("0", "inf"):
            pipe = Pipeline.from_pretrained("tiny-flux", device="cpu", step_cache=f"first-block:{threshold}")
            last = pipe.backbone.trainable.single_transformer_blocks[-1]
            calls: list[int] = []
            last.norm.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            picture, again = draw(pipe, steps=4), draw(pipe, steps=4)
            assert np.array_equal(picture, again), "a picture does not depend on the one before"
            assert np.array_equal(picture, expected) == (threshold == "0")
            runs[threshold] = len(calls)
        assert runs == {"0": 8, "inf": 2}

    def test_several_pictures_at_a_time_are_refused(self) -> None:
        """They would decide for each other."""
        pipe = Pipeline.from_pretrained("tiny-flux", device="cpu", step_cache="first-block")
        with pytest.raises(ConfigError, match="with step_cache, batch_size must be 1"):
            pipe.generate(["a", "b"], batch_size=2)

    @pytest.mark.parametrize(
        ("model", "cache", "message"),
        [
            ("tiny-sd3", "first-block", "diffusers has no step cache for SD3Transformer2DModel: leave step_cache out"),
            ("tiny-flux", "firstblock", "unknown step_cache 'firstblock'; did you mean 'first-block'"),
            ("tiny-flux", "first-block:low", "cannot read the threshold of step_cache='first-block:low'"),
        ],
    )
    def test_what_cannot_be_had_is_refused(self, model: str, cache: str, message: str) -> None:
        """In one sentence."""
        with pytest.raises(ConfigError, match=message):
            Pipeline.from_pretrained(model, device="cpu", step_cache=cache)


class TestCompile:
    """torch.compile of the repeated blocks."""

    def test_blocks_are_compiled_and_draw_the_same(self, plain: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        """Traced by torch; its code generator, which takes a minute, is left out here."""
        compiled = []

        def trace(function: Any, **settings: Any) -> Any:
            compiled.append(function)
            return whole(function, backend="eager", **settings)

        whole = functools.partial(torch.compile)
        monkeypatch.setattr(torch, "compile", trace)
        pipe = Pipeline.from_pretrained(plain.loaded.model.ref.name, device="cpu", compile=True)
        module = pipe.backbone.trainable
        blocks = sum(len(part) for part in module.children() if isinstance(part, torch.nn.ModuleList))
        assert len(compiled) == blocks
        assert np.abs(draw(pipe) - draw(plain)).max() <= 1

    def test_missing_compiler_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Before the first picture, not in it."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        with pytest.raises(
            ConfigError, match=r"compile needs a C\+\+ compiler, and there is none on the PATH: install"
        ):
            Pipeline.from_pretrained("tiny-sd3", device="cpu", compile=True)


@pytest.mark.parametrize("setting", ["offload", "quantize"])
def test_unknown_rung_is_named(setting: str) -> None:
    """With those there are."""
    with pytest.raises(UnknownNameError, match=f"unknown {setting} 'non'. Known: "):
        Pipeline.from_pretrained("tiny-sd3", device="cpu", **{setting: "non"})


def test_recipe_holds_what_the_model_was_loaded_with() -> None:
    """As far as pixels depend on it."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", dtype="bfloat16", quantize="int8")
    recipe = pipe.generate("a", width=64, height=64, steps=1)[0].info["d4k"]
    assert (recipe["dtype"], recipe["quantize"]) == ("bfloat16", "int8")
    assert not {"offload", "attention", "step_cache", "revision", "variant", "transformer"} & recipe.keys()
