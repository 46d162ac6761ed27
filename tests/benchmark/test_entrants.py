"""Names and sizes of the models of a benchmark, and the digests of their files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4k.benchmark.entrants import file_digests, look_at, name_entrants, own_size, weights_of
from d4k.benchmark.settings import split_side
from d4k.errors import CheckpointError
from d4k.models import Loading, ModelRef

SIDES = st.integers(1, 512).map(lambda number: 16 * number)


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_an_own_size_is_smaller_and_of_the_wanted_shape(trained: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Both sides are multiples of the unit; none where the model was trained at as many pixels or more."""
    found = own_size(trained, wanted, 16)
    if trained[0] * trained[1] >= wanted[0] * wanted[1]:
        assert found is None
    elif found is not None:
        assert found[0] * found[1] < wanted[0] * wanted[1]
        for side, other in ((0, 1), (1, 0)):
            assert found[side] % 16 == 0
            assert found[side] >= 16
            exact = wanted[side] * (trained[0] * trained[1] / (wanted[0] * wanted[1])) ** 0.5
            assert abs(found[side] - exact) <= 8 or found[side] == 16, other


def test_models_of_one_name_are_numbered() -> None:
    """No two folders have one name, nor is one that of another's upscaled pictures."""
    refs = [ModelRef(name) for name in ("a/sd3", "b/sd3", "runs/x/model", "sd3-upscaled", "..", "sd3-2")]
    names = name_entrants(refs)
    assert names == ["sd3", "sd3-2", "x", "sd3-upscaled-2", "model", "sd3-2-2"]
    folders = [*names, *(f"{name}-upscaled" for name in names)]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize(
    ("split", "side"), [("eval-2048", 2048), ("eval/size_4096", 4096), ("eval", None), ("v2", None), (None, None)]
)
def test_a_split_s_name_may_end_in_its_size(split: str | None, side: int | None) -> None:
    assert split_side(split) == side


def test_weights_are_the_digests_of_the_model_s_files() -> None:
    """Every part's weights and configuration of a model in the diffusers layout."""
    model = look_at("tiny", ModelRef("tiny-sd3"), Loading(device="cpu")).loaded.model
    found = weights_of(model)
    folder = Path(model.location)
    wanted = "transformer/diffusion_pytorch_model.safetensors"
    assert found[wanted] == hashlib.sha256((folder / wanted).read_bytes()).hexdigest()
    assert {"model_index.json", "vae/config.json", "scheduler/scheduler_config.json"} <= found.keys()
    assert not any(name.endswith((".png", ".md")) for name in found)


def test_a_file_of_the_hub_s_cache_is_known_by_its_name(tmp_path: Path) -> None:
    """A link into `blobs` names the digest; a blob of another kind of name is read."""
    (tmp_path / "blobs").mkdir()
    digest = "ab" * 32
    for blob in (digest, "cd" * 20):
        (tmp_path / "blobs" / blob).write_bytes(b"weights")
        (tmp_path / blob[:2]).symlink_to(tmp_path / "blobs" / blob)
    files = [tmp_path / "ab", tmp_path / "cd"]
    assert file_digests(files, CheckpointError) == [digest, hashlib.sha256(b"weights").hexdigest()]
    with pytest.raises(CheckpointError, match="cannot read .*gone"):
        file_digests([tmp_path / "gone"], CheckpointError)
