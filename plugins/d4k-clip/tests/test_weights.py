"""Weights that are missing, wrong, damaged or unsafe are refused with a sentence that says what to do."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from d4k import CheckpointError, ConfigError, create
from d4k_clip.layouts import as_open_clip
from d4k_clip.metrics import CLIPScore, HPSv2
from d4k_clip.tower import find_architecture, load_tower
from d4k_clip.weights import (
    AESTHETICS,
    HPS_V21,
    PICKSCORE,
    VIT_B16,
    VIT_L14,
    Published,
    file_digest,
    find_weights,
    read_weights,
)

CPU = torch.device("cpu")


def cached(cache: Path, published: Published, content: bytes, blob: str = "") -> Path:
    """A file in the cache of the Hub, as a copy, or as a link to a blob of that name."""
    folder = cache / f"models--{published.repo.replace('/', '--')}"
    path = folder / "snapshots" / published.revision / published.name
    path.parent.mkdir(parents=True)
    target = folder / "blobs" / blob if blob else path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    if blob:
        path.symlink_to(target)
    return path


@pytest.mark.parametrize("published", [VIT_B16, VIT_L14, PICKSCORE, HPS_V21, AESTHETICS])
def test_published_weights_are_pinned(published):
    """By commit, and by SHA-256 where it is known."""
    assert re.fullmatch("[0-9a-f]{40}", published.revision)
    assert re.fullmatch("[0-9a-f]{64}|", published.sha256)
    assert bool(published.sha256) == (published is not PICKSCORE)


def test_the_published_file_of_clip_score_is_open_clips_own_choice():
    """The repository that open_clip takes for the tag `openai`."""
    for name, published in (("ViT-B-16-quickgelu", VIT_B16), ("ViT-L-14-quickgelu", VIT_L14)):
        assert open_clip.get_pretrained_cfg(name, "openai")["hf_hub"] == f"{published.repo}/"


@pytest.mark.parametrize(
    ("name", "file", "option"),
    [
        ("clip-score", VIT_B16, "clip-score.weights"),
        ("aesthetics", AESTHETICS, "aesthetics.head"),
        ("pickscore", PICKSCORE, "pickscore.weights"),
        ("hpsv2", HPS_V21, "hpsv2.weights"),
    ],
)
def test_offline_one_line_says_which_file_to_put_where(own_cache, name, file, option):
    """The repository, the file, the commit, and the option that takes a path."""
    with pytest.raises(CheckpointError) as caught:
        create("metric", name).load(CPU)
    message = str(caught.value)
    assert f"hf download {file.repo} {file.name} --revision {file.revision}" in message
    assert f"give the path of the file as {option}" in message
    assert "\n" not in message


def test_a_published_file_with_another_digest_is_refused(own_cache):
    """The message names both, and the option that allows it."""
    path = cached(own_cache, HPS_V21, b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    words = f"its SHA-256 is {found}, expected {HPS_V21.sha256}"
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}.*{words}.*hpsv2.sha256"):
        HPSv2().load(CPU)


def test_without_a_known_digest_the_name_in_the_cache_is_checked(own_cache):
    """The Hub keeps large files by their SHA-256: one that was damaged since has another."""
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    path = cached(own_cache, PICKSCORE, content, digest)
    assert find_weights("pickscore.weights", None, PICKSCORE) == path
    path.resolve().write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=f"expected {digest}"):
        find_weights("pickscore.weights", None, PICKSCORE)


def test_a_local_file_may_be_asked_to_have_a_digest(tiny):
    """In either case of letters; another is refused, naming both."""
    digest = file_digest(Path(tiny.weights))
    metric = CLIPScore(**tiny.options, sha256=digest.upper())
    metric.load(CPU)
    assert metric.sha256 == digest
    with pytest.raises(CheckpointError, match=f"is {digest}, expected {'0' * 64}"):
        CLIPScore(**tiny.options, sha256="0" * 64).load(CPU)


def test_the_digest_of_the_file_in_use_is_shown_by_the_option(tiny):
    """After load, where none was asked for."""
    metric = CLIPScore(**tiny.options)
    assert metric.sha256 is None
    metric.load(CPU)
    assert metric.sha256 == hashlib.sha256(Path(tiny.weights).read_bytes()).hexdigest()


def test_a_file_that_changes_has_another_digest(tmp_path):
    """It is not remembered by its path alone."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_digest(path)
    path.write_bytes(b"another")
    assert file_digest(path) != first


def test_a_folder_stands_for_the_published_file_in_it(tmp_path):
    """Such as a folder that `hf download` wrote."""
    (tmp_path / VIT_B16.name).write_bytes(b"weights")
    assert find_weights("clip-score.weights", str(tmp_path), VIT_B16) == tmp_path / VIT_B16.name
    with pytest.raises(CheckpointError, match=r"there is no file .*model\.safetensors, which pickscore\.weights names"):
        find_weights("pickscore.weights", str(tmp_path), PICKSCORE)


def test_a_model_without_published_weights_needs_a_file(own_cache):
    """The message names the option."""
    with pytest.raises(CheckpointError, match=r"give a file of weights as clip-score\.weights"):
        CLIPScore(model="ViT-B-32").load(CPU)


def test_torchscript_is_refused_with_the_file_to_use(tmp_path):
    """OpenAI's own files are such archives."""
    path = tmp_path / "ViT-B-16.pt"
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ViT-B-16/constants.pkl", b"")
        archive.writestr("ViT-B-16/data.pkl", b"")
    words = f"TorchScript archive.*use open_clip_model.safetensors of '{VIT_B16.repo}'"
    with pytest.raises(CheckpointError, match=words):
        CLIPScore(weights=str(path)).load(CPU)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, save):
    """Whether torch wrote it or not."""
    save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(CheckpointError, match="tensors alone"):
        read_weights(tmp_path / "trap.pt", VIT_B16)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_damaged_file_is_a_sentence(tmp_path, name):
    """Cut short, or no weights at all."""
    for content in (b"", b"damaged" * 9):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=re.escape(name)):
            read_weights(tmp_path / name)


def test_a_pickle_of_something_else_is_refused(tmp_path):
    """A list of numbers is no state dict."""
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_weights(tmp_path / "list.pt")


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_of_training_code_are_read(tiny, tmp_path, wrap, prefix):
    """Alone or as `state_dict`, with or without the prefix of data parallelism, in half precision."""
    state = {f"{prefix}{name}": tensor.half() for name, tensor in tiny.model.state_dict().items()}
    torch.save(wrap(state), tmp_path / "weights.pt")
    tower = load_tower(find_architecture(tiny.config), tmp_path / "weights.pt", CPU)
    found = tower.embed_tokens(open_clip.tokenize(["a tree"]))
    with torch.inference_mode():
        wanted = tiny.model.encode_text(open_clip.tokenize(["a tree"]), normalize=True)
    assert found.dtype == torch.float32
    assert torch.allclose(found, wanted, atol=1e-2)


def test_weights_of_another_architecture_are_refused(tiny, tmp_path):
    """Other shapes, missing and unknown names: each is told, with the model."""
    state = {name: tensor.contiguous() for name, tensor in tiny.model.state_dict().items()}
    architecture = find_architecture(tiny.config)
    missing = {name: tensor for name, tensor in state.items() if name != "visual.proj"}
    cases = {
        "it misses visual.proj": missing,
        "it holds what is unknown there: more": state | {"more": torch.zeros(1)},
        "size mismatch for visual.proj": state | {"visual.proj": torch.zeros(3, 3)},
    }
    for words, content in cases.items():
        path = tmp_path / f"{len(words)}.safetensors"
        save_file(content, path)
        with pytest.raises(CheckpointError, match=f"does not fit the model of that configuration: .*{words}"):
            load_tower(architecture, path, CPU)


def test_openai_weights_with_another_activation_are_refused(tiny, monkeypatch):
    """QuickGELU shows in no weight: "ViT-B-16" would load, and give other figures."""
    import d4k_clip.base as base

    known = Published("o/n", "0" * 40, "f", file_digest(Path(tiny.weights)))
    monkeypatch.setitem(base._KNOWN, "ViT-B-16-quickgelu", known)
    with pytest.raises(ConfigError, match=r"the weights of ViT-B-16-quickgelu.*set clip-score\.model to"):
        CLIPScore(**tiny.options).load(CPU)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("ViT-B-17", "unknown CLIP model 'ViT-B-17'.*ViT-B-16-quickgelu"),
        ("ViT-B-16-SigLIP", "no plain CLIP"),
        ("coca_ViT-B-32", "no plain CLIP"),
        ("xlm-roberta-base-ViT-B-32", "no plain CLIP"),
        ("convnext_base", "no plain CLIP"),
        ("nowhere.json", "cannot read the configuration of a CLIP model from nowhere.json"),
    ],
)
def test_a_model_that_is_no_plain_clip_is_refused(model, words):
    """Its texts or pictures are prepared otherwise."""
    with pytest.raises(ConfigError, match=words):
        find_architecture(model)


@pytest.mark.parametrize(
    ("name", "vision", "text", "width"),
    [
        ("ViT-B-16", (768, 12, 12, 16, 3072), (512, 12, 8, 2048), 512),
        ("ViT-L-14", (1024, 24, 16, 14, 4096), (768, 12, 12, 3072), 768),
        ("ViT-H-14", (1280, 32, 16, 14, 5120), (1024, 24, 16, 4096), 1024),
    ],
)
def test_transformers_layout_of_true_size_has_every_weight_of_open_clip(name, vision, text, width):
    """On the meta device: the published sizes of CLIP and of PickScore, by name and shape."""
    seen = dict(
        zip(
            ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size", "intermediate_size"),
            vision,
            strict=True,
        )
    )
    read = dict(
        zip(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"), text, strict=True)
    )
    with torch.device("meta"):
        theirs = CLIPModel(
            CLIPConfig(
                text_config=read | {"projection_dim": width},
                vision_config=seen | {"projection_dim": width},
                projection_dim=width,
            )
        )
        own = open_clip.CLIP(**open_clip.get_model_config(name))
    found = as_open_clip(theirs.state_dict())
    assert {key: tensor.shape for key, tensor in found.items()} == {
        key: tensor.shape for key, tensor in own.state_dict().items()
    }
