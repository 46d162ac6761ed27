"""The cache gives back what encoding gives, encodes what it lacks, and finds nothing that is out of date."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_cases import SIDE, Model, fill_folder
from PIL import Image

from d4k import ConfigError, DataError, Sample
from d4k.datasets import FolderDataset
from d4k.images import Crop, open_picture, to_float, to_tensor
from d4k.training.data.cache import Filled, fill, open_cache, originals
from d4k.training.data.source import View


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def repaint(path: Path, seed: int = 99) -> None:
    """Other pixels under the same name."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def latent(filled: Filled, index: int, crop: Crop | None = None, seed: int = 0) -> torch.Tensor:
    source = filled.source
    return source.latent(source.load(View(index, crop or Crop(SIDE, SIDE), seed))).mean


def encoded(model: Any, path: Path, crop: Crop | None = None, seed: int = 0) -> torch.Tensor:
    """The latent of a picture in bfloat16, without any of the cache's code."""
    picture = (crop or Crop(SIDE, SIDE))(open_picture(path), seed)
    return model.encode_image(to_float(to_tensor(picture))[None]).to(torch.bfloat16).float()


def counts(filled: Filled) -> tuple[int, int]:
    return filled.encoded, filled.texts_encoded


def shard(cache: Path, kind: str = "latent") -> Path:
    (found,) = (cache / "shards").glob(f"{kind}-*.safetensors")
    return found


def test_the_first_fill_encodes_all_and_the_second_nothing(photos: Path, cache: Path) -> None:
    assert counts(fill_folder(Model(), photos, cache)) == (5, 6)
    model = Model()
    assert counts(fill_folder(model, photos, cache)) == (0, 0)
    assert not model.pictures
    assert not model.captions


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_what_is_read_is_what_was_encoded_in_the_dtype_of_the_cache(photos: Path, cache: Path, dtype: str) -> None:
    model = Model()
    source = fill_folder(model, photos, cache, dtype=dtype).source
    cast = getattr(torch, dtype)
    for index in range(5):
        pixels = to_float(to_tensor(Crop(SIDE, SIDE)(open_picture(photos / f"{index}.png"), 0)))[None]
        wanted = model.encode_posterior(pixels)
        found = source.latent(source.load(View(index, Crop(SIDE, SIDE))))
        assert wanted.log_variance is not None
        assert found.log_variance is not None
        assert torch.equal(found.mean, wanted.mean.to(cast).float())
        assert torch.equal(found.log_variance, wanted.log_variance.to(cast).float())
        text = model.encode_text([f"picture {index}"]).tensors["text"]
        assert torch.equal(source.text(f"picture {index}").tensors["text"], text.to(cast).float())


# the silent faults


def test_new_pixels_under_an_old_name_are_encoded(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    repaint(photos / "2.png")
    filled = fill_folder(Model(), photos, cache)
    assert counts(filled) == (1, 0)
    assert torch.equal(latent(filled, 2), encoded(Model(), photos / "2.png"))


@pytest.mark.parametrize("fresh", [originals.FRESH, 0], ids=["just changed", "changed long ago"])
def test_new_pixels_with_the_size_and_time_of_the_old_ones_are_encoded(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, fresh: int
) -> None:
    monkeypatch.setattr(originals, "FRESH", fresh)
    photos = tmp_path / "bitmaps"
    photos.mkdir()
    for seed in range(2):
        repaint(photos / f"{seed}.bmp", seed)
        (photos / f"{seed}.txt").write_text(f"picture {seed}")
        os.utime(photos / f"{seed}.bmp", (1e9, 1e9))
    fill_folder(Model(), photos, cache)
    before = (photos / "1.bmp").stat()
    repaint(photos / "1.bmp", 7)
    os.utime(photos / "1.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (photos / "1.bmp").stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    filled = fill_folder(Model(), photos, cache)
    assert counts(filled) == (1, 0)
    assert torch.equal(latent(filled, 1), encoded(Model(), photos / "1.bmp"))


def test_another_autoencoder_encodes_all_pictures_and_no_caption(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    model = Model()
    with torch.no_grad():
        model.vae.weight.add_(1e-6)
    assert counts(fill_folder(model, photos, cache)) == (5, 0)


def test_another_text_encoder_encodes_all_captions_and_no_picture(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    model = Model()
    with torch.no_grad():
        model.text_encoder.bias.add_(1e-6)
    assert counts(fill_folder(model, photos, cache)) == (0, 6)


def test_another_denoiser_encodes_nothing(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    assert counts(fill_folder(Model(seed=1), photos, cache)) == (0, 0)


def test_another_length_of_text_encodes_all_captions(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    assert counts(fill_folder(Model(tokens=8), photos, cache)) == (0, 6)


def test_another_caption_is_the_only_one_that_is_encoded(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    (photos / "3.txt").write_text("another caption")
    model = Model()
    filled = fill_folder(model, photos, cache)
    assert (model.captions, model.pictures, counts(filled)) == (["another caption"], [], (0, 1))


def test_another_size_encodes_all_pictures(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    filled = fill_folder(Model(), photos, cache, side=12)
    assert counts(filled) == (5, 0)
    assert torch.equal(latent(filled, 0, Crop(12, 12)), encoded(Model(), photos / "0.png", Crop(12, 12)))


def test_every_other_crop_is_another_entry(photos: Path, cache: Path) -> None:
    dataset, crop = FolderDataset(photos), Crop(SIDE, SIDE, position="random", flip=True)
    views = [View(0, crop, seed) for seed in range(8)]
    cuts = {crop.cut((24, 20), seed) for seed in range(8)}
    assert len(cuts) > 4
    model = Model()
    filled = fill(model, dataset, views, [], cache)
    assert filled.encoded == len(model.pictures) == len(cuts)  # those that fall together are one entry
    for view in views:
        assert torch.equal(latent(filled, 0, crop, view.seed), encoded(Model(), photos / "0.png", crop, view.seed))


def test_another_dtype_encodes_all_anew(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    assert counts(fill_folder(Model(), photos, cache, dtype="float32")) == (5, 6)


def test_a_shard_that_was_cut_short_is_said_and_encoded_again(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    with shard(cache).open("r+b") as file:
        file.truncate(shard(cache).stat().st_size - 3)
    filled = fill_folder(Model(), photos, cache)
    assert counts(filled) == (5, 0)
    assert len(filled.notes) == 1
    assert "cut short" in filled.notes[0]
    assert torch.equal(latent(filled, 4), encoded(Model(), photos / "4.png"))


def test_a_shard_that_is_gone_is_encoded_again(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    shard(cache, "text").unlink()
    assert counts(fill_folder(Model(), photos, cache)) == (0, 6)


@pytest.mark.parametrize("place", [-1, 300], ids=["values", "header"])
def test_a_changed_byte_is_an_error_that_names_the_picture_and_the_remedy(
    photos: Path, cache: Path, place: int
) -> None:
    filled = fill_folder(Model(), photos, cache)
    content = bytearray(shard(cache).read_bytes())
    content[place] ^= 1  # 300: within the description of the entries
    shard(cache).write_bytes(content)
    faults = {}
    for index in range(5):
        try:
            assert torch.equal(latent(filled, index), encoded(Model(), photos / f"{index}.png"))
        except DataError as error:
            faults[index] = str(error)
    assert len(faults) == 1
    assert all(f"picture '{index}.png'" in fault for index, fault in faults.items())
    assert all(f"d4k cache repair {cache}" in fault for fault in faults.values())


def test_two_pictures_of_one_base_name_are_two_entries(photos: Path, cache: Path) -> None:
    for folder in ("a", "b"):
        (photos / folder).mkdir()
        repaint(photos / folder / "same.png", ord(folder))
        (photos / folder / "same.txt").write_text("the same")
    dataset = FolderDataset(photos, recursive=True)
    places = [index for index in range(len(dataset)) if "same" in dataset[index].id]
    filled = fill(Model(), dataset, [View(index, Crop(SIDE, SIDE)) for index in places], [], cache)
    assert filled.encoded == 2
    for index in places:
        source = dataset[index].source
        assert isinstance(source, Path)
        assert torch.equal(latent(filled, index), encoded(Model(), source))


def test_one_picture_under_two_names_is_one_entry(photos: Path, cache: Path) -> None:
    shutil.copy(photos / "0.png", photos / "5.png")
    (photos / "5.txt").write_text("a copy")
    filled = fill_folder(Model(), photos, cache)
    assert filled.encoded == 5
    assert torch.equal(latent(filled, 5), latent(filled, 0))


# what is found without being in the index


def test_shards_that_a_killed_writer_did_not_enter_are_found(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    (cache / "index.sqlite").unlink()
    filled = fill_folder(Model(), photos, cache)
    assert counts(filled) == (0, 0)
    assert torch.equal(latent(filled, 1), encoded(Model(), photos / "1.png"))


def test_a_copy_of_a_shard_doubles_nothing_and_goes(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    copy = cache / "shards" / "latent-copy.safetensors"
    shutil.copy(shard(cache), copy)
    open_cache(cache)
    assert not copy.exists()
    with sqlite3.connect(cache / "index.sqlite") as rows:
        assert rows.execute("SELECT count(*) FROM entries").fetchone() == (11,)
        assert rows.execute("SELECT count(*) FROM shards").fetchone() == (2,)


def test_an_index_that_is_no_database_names_the_remedy(photos: Path, cache: Path) -> None:
    fill_folder(Model(), photos, cache)
    (cache / "index.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="d4k cache repair"):
        open_cache(cache)


# pictures that cannot be encoded


def test_all_pictures_that_cannot_be_encoded_are_named_at_once(photos: Path, cache: Path) -> None:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    (photos / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2 pictures cannot be encoded: picture 1\.png .* picture 3\.png .*'skip'"):
        fill_folder(Model(), photos, cache)
    assert len((cache / "unreadable.txt").read_text().splitlines()) == 2
    repaint(photos / "1.png")
    repaint(photos / "3.png", 3)
    assert counts(fill_folder(Model(), photos, cache)) == (2, 6)  # the others were kept


def test_copies_of_a_picture_that_cannot_be_encoded_are_left_out_with_it(photos: Path, cache: Path) -> None:
    """They have one key, and one of them is tried."""
    for name in ("1.png", "3.png"):
        (photos / name).write_bytes((photos / "2.png").read_bytes()[:200])
    filled = fill_folder(Model(), photos, cache, unreadable="skip")
    assert list(filled.unreadable) == [1, 3]
    assert all(f"{index}.png" in words for index, words in filled.unreadable.items())
    assert (filled.pictures, filled.encoded) == (3, 3)


def test_pictures_that_cannot_be_encoded_are_left_out_where_that_is_asked_for(photos: Path, cache: Path) -> None:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    filled = fill_folder(Model(), photos, cache, unreadable="skip")
    assert list(filled.unreadable) == [1]
    assert "1.png" in filled.unreadable[1]
    assert (filled.pictures, filled.latents) == (4, 4)
    with pytest.raises(DataError, match="not in cache"):
        latent(filled, 1)


def test_a_latent_that_is_not_finite_in_the_dtype_of_the_cache_is_named(photos: Path, cache: Path) -> None:
    model = Model()
    with torch.no_grad():
        model.vae.weight.fill_(1e6)
    with pytest.raises(DataError, match=r"0\.png has a latent that is not finite in float16"):
        fill_folder(model, photos, cache, dtype="float16")


def test_a_caption_whose_text_is_not_finite_is_named(photos: Path, cache: Path) -> None:
    model = Model()
    with torch.no_grad():
        model.text_encoder.weight.fill_(torch.inf)
    with pytest.raises(DataError, match=r"of the caption '.*' is not finite in bfloat16"):
        fill_folder(model, photos, cache)


def test_a_backbone_without_a_posterior_stores_modes_and_refuses_samples(
    photos: Path, cache: Path, backbone: Any
) -> None:
    assert not hasattr(backbone, "encode_posterior")
    source = fill_folder(backbone, photos, cache).source
    assert source.latent(source.load(View(0, Crop(SIDE, SIDE)))).log_variance is None
    with pytest.raises(ConfigError, match="posterior = 'sample'"):
        fill_folder(backbone, photos, cache, posterior="sample")


# where the pictures come from


def test_a_picture_that_is_no_file_is_read_every_time(photos: Path, cache: Path) -> None:
    first = Sample("stream", "a", lambda: (photos / "0.png").open("rb"))
    view = [View(0, Crop(SIDE, SIDE))]
    assert fill(Model(), [first], view, [], cache).encoded == 1
    assert fill(Model(), [first], view, [], cache).encoded == 0
    repaint(photos / "0.png")
    assert fill(Model(), [first], view, [], cache).encoded == 1


def test_reading_needs_neither_pictures_nor_model_and_works_in_another_process(photos: Path, cache: Path) -> None:
    filled = fill_folder(Model(), photos, cache)
    wanted = latent(filled, 0)
    shutil.rmtree(photos)
    source = pickle.loads(pickle.dumps(filled.source))
    assert torch.equal(source.latent(source.load(View(0, Crop(SIDE, SIDE)))).mean, wanted)
    with pytest.raises(DataError, match="caption 'unknown' is not in cache"):
        source.text("unknown")
