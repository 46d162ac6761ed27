"""Every way a model may be stored, on the tiny checkpoints: each loads to the same picture, or says what is wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

from d4k import CheckpointError, ConfigError, Pipeline
from d4k.models import CARD, ModelRef, find_model
from d4k.plugins import registry

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def draw(model: str | Path, **settings: Any) -> np.ndarray:
    """A small picture."""
    pipe = Pipeline.from_pretrained(model, device="cpu", **settings)
    return np.asarray(pipe.generate("a tabby cat", width=64, height=64, steps=2, guidance=1.0)[0])


@pytest.fixture(scope="module")
def tiny() -> Path:
    """The folder of `tiny-sd3`."""
    return Path(registry().get("checkpoint", "tiny-sd3").target)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return draw("tiny-sd3")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of `tiny-sd3` to change: weights are links, so that it costs nothing."""
    return Path(shutil.copytree(tiny, tmp_path / "model", copy_function=_link))


def _link(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        Path(target).symlink_to(source)
    else:
        shutil.copyfile(source, target)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`cache("owner/name", model, v1=COMMIT)`: a Hub cache that holds `model` as that commit, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def store(repo: str, model: Path, **refs: str) -> Path:
        home = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        for ref, commit in refs.items():
            (home / "refs" / ref).write_text(commit)
            shutil.copytree(model, home / "snapshots" / commit, copy_function=_link)
        return home / "snapshots" / next(iter(refs.values()))

    return store


def as_variant(model: Path, variant: str, *, only: tuple[str, ...] = ("transformer", "vae")) -> None:
    for part in only:
        (model / part / WEIGHTS).rename(model / part / WEIGHTS.replace(".", f".{variant}.", 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps, a checkpoint after each."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="interpolate")
    pipe.train(dataset="sample-photos", output_dir=folder, loss="mse", steps=2, save_every=1, lr=1e-3,
               width=64, height=64)  # fmt: skip
    return folder


class TestHub:
    """Without a network: what the cache holds is loaded, and what it does not is one sentence."""

    def test_cached_snapshot_loads(self, cache: Callable[..., Path], tiny: Path, expected: np.ndarray) -> None:
        """By Hub id alone."""
        cache("owner/tiny", tiny, main=COMMIT)
        assert np.array_equal(draw("owner/tiny", steps=2), expected)

    def test_revision_is_that_of_index_options_and_weights(
        self, cache: Callable[..., Path], tiny: Path, folder: Path
    ) -> None:
        """A branch, a tag or a commit; each has its own `d4k.json`."""
        (folder / CARD).write_text(json.dumps({"format": 1, "backbone": "sd3", "options": {"trained_size": 128}}))
        cache("owner/tiny", tiny, main=COMMIT)
        cache("owner/tiny", folder, small=OTHER)
        sizes = [
            Pipeline.from_pretrained("owner/tiny", device="cpu", revision=revision).backbone.defaults.size
            for revision in (None, "small", OTHER)
        ]
        assert sizes == [256, 128, 128]

    def test_revision_that_is_not_cached_says_what_to_do(self, cache: Callable[..., Path], tiny: Path) -> None:
        """Offline, that is all there is to know."""
        cache("owner/tiny", tiny, main=COMMIT)
        with pytest.raises(CheckpointError, match=r"or the Hub cannot be reached\. Offline\? Download it where"):
            Pipeline.from_pretrained("owner/tiny", revision="v9")

    def test_model_that_is_not_cached_says_what_to_do(self, cache: Callable[..., Path]) -> None:
        """One line with the way out."""
        with pytest.raises(CheckpointError, match=r"or the Hub cannot be reached\. Offline\? Download it where"):
            Pipeline.from_pretrained("owner/nothing")

    def test_interrupted_download_names_what_is_missing(self, cache: Callable[..., Path], tiny: Path) -> None:
        """The index is there, the denoiser is not."""
        snapshot = cache("owner/tiny", tiny, main=COMMIT)
        (snapshot / "transformer" / WEIGHTS).unlink()
        with pytest.raises(CheckpointError, match=r"transformer has no weights .* Download it again: what is there"):
            Pipeline.from_pretrained("owner/tiny", device="cpu")

    def test_revision_of_a_folder_is_refused(self, folder: Path) -> None:
        """It would be ignored."""
        with pytest.raises(ConfigError, match="revision 'v1' is of a Hub id, and .* is a folder"):
            Pipeline.from_pretrained(folder, revision="v1")


class TestPublishedModel:
    """`zhang0jhon/flux_wavelet`: a whole FLUX.1 in the diffusers layout; nothing in it says stride 16."""

    @pytest.fixture
    def published(self) -> Path:
        return Path(registry().get("checkpoint", "tiny-flux").target)

    def test_hub_id_is_read_at_stride_16(self, cache: Callable[..., Path], published: Path) -> None:
        """By its Hub id and by its short name, without being told."""
        cache("zhang0jhon/flux_wavelet", published, main=COMMIT)
        for name in ("zhang0jhon/flux_wavelet", "flux-wavelet"):
            assert Pipeline.from_pretrained(name, device="cpu").backbone.latent.downscale == 16

    def test_it_serves_as_the_transformer_of_another_model(self, cache: Callable[..., Path], published: Path) -> None:
        """Only its denoiser is read, and the stride comes with it."""
        shutil.rmtree(cache("zhang0jhon/flux_wavelet", published, main=COMMIT) / "vae")
        pipe = Pipeline.from_pretrained("tiny-flux", transformer="zhang0jhon/flux_wavelet", device="cpu")
        assert pipe.backbone.latent.downscale == 16

    def test_local_path_takes_the_stride_as_an_option(self, published: Path) -> None:
        """As a model, and as a transformer."""
        for given in ({"model": published}, {"model": "tiny-flux", "transformer": published}):
            assert Pipeline.from_pretrained(**given, device="cpu", downscale=16).backbone.latent.downscale == 16


class TestTransformer:
    """Another denoiser over a model."""

    @pytest.fixture
    def changed(self, tiny: Path, tmp_path: Path) -> Path:
        """The denoiser of `tiny-sd3`, a little off, in a folder of its own."""
        folder = Path(shutil.copytree(tiny / "transformer", tmp_path / "denoiser"))
        tensors = load_file(folder / WEIGHTS)
        save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, folder / WEIGHTS)
        return folder

    def test_every_form_draws_the_same_picture(
        self, changed: Path, folder: Path, tmp_path: Path, expected: np.ndarray
    ) -> None:
        """A folder, a model's folder, a file in diffusers' names and in the original ones, safetensors and pickle."""
        for part in (folder / "transformer").iterdir():
            part.unlink()
        shutil.copytree(changed, folder / "transformer", dirs_exist_ok=True)
        tensors = load_file(changed / WEIGHTS)
        save_file(original_names(tensors), tmp_path / "original.safetensors")
        torch.save({"state_dict": tensors}, tmp_path / "pickle.ckpt")

        reference = draw("tiny-sd3", transformer=changed)
        forms = folder, changed / WEIGHTS, tmp_path / "original.safetensors", tmp_path / "pickle.ckpt"

        assert not np.array_equal(reference, expected)
        for form in forms:
            assert np.array_equal(draw("tiny-sd3", transformer=form), reference), form

    def test_weights_of_the_base_are_not_needed(self, changed: Path, folder: Path) -> None:
        """Only its configuration is."""
        (folder / "transformer" / WEIGHTS).unlink()
        draw(folder, transformer=changed / WEIGHTS)

    def test_folder_of_a_denoiser_alone_is_no_model(self, changed: Path) -> None:
        """The message says how it is used."""
        with pytest.raises(CheckpointError, match="holds one part of a model: give the model, and this as its trans"):
            Pipeline.from_pretrained(changed)

    def test_what_does_not_exist_is_named(self) -> None:
        """A path is not taken for a Hub id."""
        with pytest.raises(CheckpointError, match=r"there is no file or folder \./nothing\.safetensors|nothing"):
            Pipeline.from_pretrained("tiny-sd3", transformer="./nothing.safetensors", device="cpu")

    def test_denoiser_of_another_model_is_refused(self, tmp_path: Path) -> None:
        """A folder by its class, a file by its names."""
        other = Path(registry().get("checkpoint", "tiny-flux").target) / "transformer"
        with pytest.raises(CheckpointError, match="holds a FluxTransformer2DModel, where the model has a SD3Trans"):
            Pipeline.from_pretrained("tiny-sd3", transformer=other, device="cpu")
        with pytest.raises(
            CheckpointError, match=r"do not fit .* tensors 61 missing: pos_embed.*; 62 unexpected: single"
        ):
            Pipeline.from_pretrained("tiny-sd3", transformer=other / WEIGHTS, device="cpu")
        save_file({"a.weight": torch.zeros(2)}, tmp_path / "nonsense.safetensors")
        with pytest.raises(CheckpointError, match="neither the tensors of SD3Transformer2DModel nor those of its orig"):
            Pipeline.from_pretrained("tiny-sd3", transformer=tmp_path / "nonsense.safetensors", device="cpu")


class TestRun:
    """d4k's own training checkpoints: the model the run began with, and what it had learnt by then."""

    def test_checkpoint_is_base_and_learnt_weights(self, run: Path) -> None:
        """Options of the run hold, too."""
        state = run / "checkpoints" / "step-00000001"
        backbone = Pipeline.from_pretrained(state, device="cpu").backbone
        learnt = load_file(state / "trainable.safetensors")
        assert all(torch.equal(tensor, learnt[name]) for name, tensor in backbone.trainable.state_dict().items())
        assert backbone.positions == "interpolate"

    def test_run_stands_for_its_model_or_else_its_newest_checkpoint(self, run: Path, tmp_path: Path) -> None:
        """A run that was interrupted has no model yet, and draws the same picture as one that has."""
        unfinished = Path(shutil.copytree(run, tmp_path / "run"))
        shutil.rmtree(unfinished / "model")
        assert find_model(ModelRef(str(unfinished))).transformer == str(
            unfinished / "checkpoints" / "step-00000002" / "trainable.safetensors"
        )
        assert np.array_equal(draw(unfinished), draw(run))

    def test_checkpoint_serves_as_a_transformer(self, run: Path) -> None:
        """Over a model that the user names."""
        state = run / "checkpoints" / "step-00000002"
        assert np.array_equal(draw("tiny-sd3", transformer=state, positions="interpolate"), draw(run))

    def test_finished_run_serves_as_a_transformer(self, run: Path) -> None:
        """With the options and the training of its model, not as its last checkpoint, which says neither."""
        source, model = find_model(ModelRef("tiny-sd3", transformer=str(run))), find_model(ModelRef(str(run)))
        assert source.transformer == model.location
        assert source.options == model.options
        assert source.training == model.training != {}
        assert np.array_equal(draw("tiny-sd3", transformer=run), draw(run))

    def test_checkpoint_of_an_adapter_says_what_to_give(self, tmp_path: Path) -> None:
        """The folder of a run that has ended; one that has not is to be finished."""
        state = tmp_path / "checkpoints" / "step-00000001"
        state.mkdir(parents=True)
        (state / "trainable.safetensors").touch()
        (tmp_path / "config.toml").write_text(
            'model = "tiny-sd3"\noutput_dir = "x"\ndataset.name = "folder"\n[adapter]\nrank = 2\n'
        )
        with pytest.raises(CheckpointError, match="which is no model: finish its run with d4k train --resume"):
            find_model(ModelRef(str(state)))
        (tmp_path / "adapter").mkdir()
        with pytest.raises(CheckpointError, match=f"which is no model: its run has ended: give {tmp_path}$"):
            find_model(ModelRef(str(state)))

    def test_checkpoint_without_its_run_says_what_to_give(self, run: Path, tmp_path: Path) -> None:
        """The configuration that names the base model is gone."""
        state = shutil.copytree(run / "checkpoints" / "step-00000001", tmp_path / "step-00000001")
        with pytest.raises(CheckpointError, match="holds a denoiser alone, and .*config.toml, .* is not there: give"):
            Pipeline.from_pretrained(state)


class TestFiles:
    """Variants, shards, pickles, and what is said of each that does not fit."""

    def test_variant_is_read(self, folder: Path, expected: np.ndarray) -> None:
        """Parts without files of the variant are read without it."""
        as_variant(folder, "fp16")
        assert np.array_equal(draw(folder, variant="fp16"), expected)

    def test_variants_there_are_named(self, folder: Path) -> None:
        """Whether another one was asked for, or none."""
        as_variant(folder, "fp16")
        with pytest.raises(CheckpointError, match="no weights of the variant 'bf16'; it has fp16"):
            Pipeline.from_pretrained(folder, device="cpu", variant="bf16")
        with pytest.raises(CheckpointError, match="transformer has no weights .* has the variants fp16: name one"):
            Pipeline.from_pretrained(folder, device="cpu")

    @pytest.fixture
    def sharded(self, folder: Path) -> Path:
        tensors = load_file(folder / "transformer" / WEIGHTS)
        (folder / "transformer" / WEIGHTS).unlink()
        names, index = sorted(tensors), {}
        for number, part in enumerate((names[::2], names[1::2]), 1):
            file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
            save_file({name: tensors[name] for name in part}, folder / "transformer" / file)
            index |= dict.fromkeys(part, file)
        content = json.dumps({"metadata": {}, "weight_map": index})
        (folder / "transformer" / f"{WEIGHTS}.index.json").write_text(content)
        return folder

    def test_shards_are_read(self, sharded: Path, expected: np.ndarray) -> None:
        """As diffusers splits large models."""
        assert np.array_equal(draw(sharded), expected)

    def test_missing_shard_is_named(self, sharded: Path) -> None:
        """Before anything is read."""
        (sharded / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
        with pytest.raises(
            CheckpointError, match=r"lacks 1 of the 2 files that .*index\.json names: .*-00002-of-00002"
        ):
            Pipeline.from_pretrained(sharded, device="cpu")

    def test_pickle_of_tensors_is_read(self, folder: Path, expected: np.ndarray) -> None:
        """Torch's weights-only reading is enough for it."""
        file = folder / "transformer" / WEIGHTS
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
        assert np.array_equal(draw(folder), expected)

    @pytest.mark.parametrize("place", ["model", "transformer"])
    def test_pickle_of_anything_else_is_refused(self, folder: Path, place: str) -> None:
        """It could run code."""
        file = folder / "transformer" / WEIGHTS
        torch.save({"weight": Path("x")}, file.with_suffix(".bin"))
        given = {"transformer": file.with_suffix(".bin")} if place == "transformer" else {}
        file.unlink()
        with pytest.raises(CheckpointError, match=r"holds pickled objects other than tensors.* refused"):
            Pipeline.from_pretrained(folder, device="cpu", **given)

    @pytest.mark.parametrize(
        ("part", "file"), [("transformer", WEIGHTS), ("vae", WEIGHTS), ("text_encoder", "model.safetensors")]
    )
    @pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
    def test_tensors_that_do_not_fit_are_counted_and_named(
        self, folder: Path, part: str, file: str, fault: str
    ) -> None:
        """By the headers: nothing is allocated before."""
        path = folder / part / file
        tensors = load_file(path)
        name = next(name for name in sorted(tensors) if name.endswith(("fc1.weight", "conv1.weight", "norm_q.weight")))
        if fault == "missing":
            del tensors[name]
        elif fault == "unexpected":
            name = "surplus"
            tensors[name] = torch.zeros(2)
        else:
            tensors[name] = tensors[name][:-1].contiguous()
        path.unlink()
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=f"{part} do not fit .*tensors 1 {fault}: {re.escape(name)}"):
            Pipeline.from_pretrained(folder, device="cpu")


def original_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The denoiser of SD3 in the names of its original release, written from the published layout."""
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))
    renamed: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for pattern, original in ORIGINAL:
            name = re.sub(pattern, original, name)
        if re.search(r"\.qkv_[qkv]\.", name):
            whole = re.sub(r"qkv_[qkv]", "qkv", name)
            joined.setdefault(whole, {})[re.search(r"qkv_([qkv])", name)[1]] = tensor  # type: ignore[index]
            continue
        if "final_layer.adaLN" in name or f"joint_blocks.{last}.context_block.adaLN" in name:
            tensor = torch.cat(tensor.chunk(2)[::-1])
        renamed[f"model.diffusion_model.{name}"] = tensor.contiguous()
    for name, parts in joined.items():
        renamed[f"model.diffusion_model.{name}"] = torch.cat([parts[letter] for letter in "qkv"])
    return renamed


ORIGINAL = [
    (r"^pos_embed\.pos_embed$", "pos_embed"),
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^transformer_blocks", "joint_blocks"),
    (r"attn\.to_([qkv])\.", r"x_block.attn.qkv_\1."),
    (r"attn\.add_([qkv])_proj\.", r"context_block.attn.qkv_\1."),
    (r"attn\.norm_([qk])\.", r"x_block.attn.ln_\1."),
    (r"attn\.norm_added_([qk])\.", r"context_block.attn.ln_\1."),
    (r"attn\.to_out\.0", "x_block.attn.proj"),
    (r"attn\.to_add_out", "context_block.attn.proj"),
    (r"norm1\.linear", "x_block.adaLN_modulation.1"),
    (r"norm1_context\.linear", "context_block.adaLN_modulation.1"),
    (r"ff\.net\.0\.proj", "x_block.mlp.fc1"),
    (r"ff\.net\.2", "x_block.mlp.fc2"),
    (r"ff_context\.net\.0\.proj", "context_block.mlp.fc1"),
    (r"ff_context\.net\.2", "context_block.mlp.fc2"),
]
