"""Batches by number: the same on every call, whatever came before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from PIL import Image

from d4k import Conditioning, Sample
from d4k.autoencoder import Posterior
from d4k.config import RunConfig, from_mapping
from d4k.datasets import FolderDataset
from d4k.errors import ConfigError, DataError
from d4k.flow import sample_sigma, shift_sigma
from d4k.images import Crop, open_picture, to_float, to_tensor
from d4k.seeds import numbered_seed
from d4k.training import Bucket, Chosen, Encoding, Feed, View, choose_pictures

Config = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.fixture
def dataset(photos: Path) -> FolderDataset:
    """Five captioned pictures."""
    return FolderDataset(photos)


class TestFeed:
    """Batches by number: the same on every call, whatever came before."""

    def feed(self, backbone: Any, dataset: Any, config: Any) -> Feed:
        source = Encoding(backbone, dataset, config.data.posterior)
        return Feed(source, choose_pictures(dataset, backbone, config), config, CPU)

    def test_batch_is_a_function_of_its_number(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        """Asked late or early, alone or after others."""
        config = run_config(data={"crop": "random", "flip": True}, training={"caption_dropout": 0.5})
        one, other = (self.feed(backbone, dataset, config) for _ in range(2))
        for number in (0, 1, 2):
            one.batch(number)
        late, alone = one.batch(7), other.batch(7)
        for name in ("clean", "noise", "sigma"):
            assert torch.equal(getattr(late, name), getattr(alone, name))
        assert torch.equal(late.conditioning.tensors["text"], alone.conditioning.tensors["text"])
        assert not torch.equal(late.noise, other.batch(8).noise)

    def test_every_epoch_shows_every_picture_once_in_another_order(
        self, backbone: Any, dataset: Any, run_config: Config
    ) -> None:
        """Five pictures in batches of one."""
        feed = self.feed(backbone, dataset, run_config(training={"batch_size": 1}))
        seen = [tuple(feed.batch(number).conditioning.tensors["text"][0].tolist()) for number in range(15)]
        epochs = [seen[0:5], seen[5:10], seen[10:15]]
        assert all(len(set(epoch)) == 5 for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1
        assert set(epochs[0]) == set(epochs[1])

    def test_sample_goes_with_its_caption(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        """Latent and text of one item are those of one picture, cropped in the centre to the backbone's own size."""
        batch = self.feed(backbone, dataset, run_config(training={"batch_size": 5})).batch(0)
        assert batch.clean.shape == (5, 12, 8, 8)
        assert batch.noise.std().item() == pytest.approx(1, abs=0.05)
        for latent, text in zip(batch.clean, batch.conditioning.tensors["text"], strict=True):
            sample = next(s for s in dataset if torch.equal(backbone.encode_text([s.caption]).tensors["text"][0], text))
            pixels = to_float(to_tensor(Crop(16, 16)(open_picture(sample.source), 0)))
            assert torch.equal(latent, backbone.encode_image(pixels[None])[0])

    def test_noise_levels_follow_the_settings(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        """Every key of the flow section reaches the draw."""
        plain = self.feed(backbone, dataset, run_config()).batch(3).sigma
        for change in ({"density": "uniform"}, {"mean": 1.0}, {"std": 0.1}, {"shift": 3.0}, {"density": "mode"}):
            assert not torch.equal(self.feed(backbone, dataset, run_config(flow=change)).batch(3).sigma, plain)
        one, other = (
            self.feed(backbone, dataset, run_config(flow={"density": "mode", "mode_scale": scale})).batch(3).sigma
            for scale in (0.5, 1.0)
        )
        assert not torch.equal(one, other)
        tight = run_config(flow={"mean": 2.0, "std": 1e-6}, training={"batch_size": 5})
        assert self.feed(backbone, dataset, tight).batch(0).sigma.tolist() == pytest.approx([0.8807971] * 5)
        assert sample_sigma(1, mean=2.0, std=1e-6).item() == pytest.approx(0.8807971)

    def test_captions_are_dropped_as_often_as_asked(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        """A dropped caption is the empty prompt; 0 drops none, 1 all, 0.3 about a third."""
        empty, share = backbone.encode_text([""]).tensors["text"], []
        for dropout in (0.0, 0.3, 1.0):
            config = run_config(training={"batch_size": 200, "caption_dropout": dropout})
            texts = self.feed(backbone, dataset, config).batch(0).conditioning.tensors["text"]
            share.append((texts == empty).all(1).float().mean().item())
        assert share == [0.0, pytest.approx(0.3, abs=0.1), 1.0]

    @pytest.mark.parametrize("data", [{"crop": "random"}, {"flip": True}])
    def test_random_crops_and_flips_are_new_in_every_epoch(
        self, backbone: Any, dataset: Any, run_config: Config, data: dict[str, Any]
    ) -> None:
        """A picture is cut otherwise in later epochs; centred cuts stay."""
        for settings, fixed in ((data, False), ({}, True)):
            feed = self.feed(backbone, dataset, run_config(data=settings, training={"batch_size": 5}))
            cuts = set()
            for number in range(6):
                batch = feed.batch(number)
                first = batch.conditioning.tensors["text"].sum(1).argmax()
                cuts.add(batch.clean[first].numpy().tobytes())
            assert (len(cuts) == 1) is fixed

    def test_centred_pictures_are_encoded_once(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        """Later epochs take the latents from memory; captions likewise."""
        calls: list[str] = []

        def counted(name: str) -> Callable[..., Any]:
            def call(given: Any) -> Any:
                calls.append(name)
                return getattr(type(backbone), name)(backbone, given)

            return call

        backbone.encode_image, backbone.encode_text = counted("encode_image"), counted("encode_text")
        feed = self.feed(backbone, dataset, run_config(training={"batch_size": 5}))
        for number in range(3):
            feed.batch(number)
        assert (calls.count("encode_image"), calls.count("encode_text")) == (5, 5)

    def test_empty_dataset_and_impossible_size_are_refused(
        self, backbone: Any, dataset: Any, run_config: Config
    ) -> None:
        """Before anything is read."""
        nothing: list[Sample] = []
        with pytest.raises(DataError, match="the dataset is empty"):
            self.feed(backbone, nothing, run_config())
        with pytest.raises(ConfigError, match="width 18 is not a multiple of 4; nearest: 16 or 20"):
            self.feed(backbone, dataset, run_config(data={"width": 18}))

    def test_a_batch_says_what_it_is_made_of(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        """Ids for a report, the size it is cut to, its number."""
        batch = self.feed(backbone, dataset, run_config(training={"batch_size": 5})).batch(3)
        assert sorted(batch.ids) == [f"{number}.png" for number in range(5)]
        assert (batch.size, batch.number) == ((16, 16), 3)
        for name, text in zip(batch.ids, batch.conditioning.tensors["text"], strict=True):
            assert torch.equal(text, backbone.encode_text([f"picture {name[0]}"]).tensors["text"][0])


def square(folder: Path, count: int) -> FolderDataset:
    """The pictures of a folder, and so many square ones."""
    for number in range(count):
        Image.effect_noise((17 + number, 17 + number), 99).convert("RGB").save(folder / f"square{number}.png")
        (folder / f"square{number}.txt").write_text(f"square {number}")
    return FolderDataset(folder)


class Fixed:
    """A source of posteriors that say which view they are of."""

    def __init__(self, variance: bool = True) -> None:
        self.variance = variance

    def load(self, view: View) -> View:
        return view

    def latent(self, loaded: View) -> Posterior:
        mean = torch.full((1, 2, loaded.crop.height // 2, loaded.crop.width // 2), float(loaded.index))
        return Posterior(mean.bfloat16(), torch.full_like(mean, 2.0).bfloat16() if self.variance else None)

    def text(self, caption: str) -> Conditioning:
        return Conditioning({"length": torch.tensor([len(caption)])})


class TestBuckets:
    """Batches of a run whose pictures have several shapes."""

    def feed(self, backbone: Any, dataset: Any, config: Any, *shared: int, source: Any = None, **more: Any) -> Feed:
        chosen = choose_pictures(dataset, backbone, config)
        return Feed(source or Encoding(backbone, dataset), chosen, config, CPU, *shared, **more)

    def config(self, make: Config, **sections: Any) -> Any:
        return make(**{"data": {"buckets": ["16x16", "20x16"]}, **sections})

    def test_every_batch_is_of_one_bucket(self, backbone: Any, photos: Path, run_config: Config) -> None:
        """Its latents have the size that it says; in some epochs every picture is trained as often."""
        feed = self.feed(backbone, square(photos, 3), self.config(run_config))
        found = [feed.batch(number) for number in range(8)]  # two epochs
        assert {batch.size for batch in found} == {(16, 16), (20, 16)}
        for batch in found:
            assert batch.clean.shape == batch.noise.shape == (2, 12, batch.size[1] // 2, batch.size[0] // 2)
            assert {name.startswith("square") for name in batch.ids} == {batch.size == (16, 16)}
        assert set(Counter(name for batch in found for name in batch.ids).values()) == {2}

    @pytest.mark.parametrize("world", [2, 3])
    def test_processes_share_the_batches_of_one(
        self, backbone: Any, photos: Path, run_config: Config, world: int
    ) -> None:
        """So many processes see in a step what one sees with so many times the accumulation."""
        dataset = square(photos, 3)
        config = self.config(run_config, training={"caption_dropout": 0.5})
        alone = self.feed(backbone, dataset, config)
        shared = [self.feed(backbone, dataset, config, rank, world) for rank in range(world)]
        for micro in range(5):
            for rank, feed in enumerate(shared):
                one, other = feed.batch(micro), alone.batch(micro * world + rank)
                assert (one.ids, one.size, one.number) == (other.ids, other.size, other.number)
                assert torch.equal(one.clean, other.clean)
                assert torch.equal(one.noise, other.noise)
                assert torch.equal(one.sigma, other.sigma)
                assert torch.equal(one.conditioning.tensors["text"], other.conditioning.tensors["text"])

    @how(max_examples=40)
    @given(
        first=st.integers(0, 25),
        batch_size=st.integers(1, 3),
        shared=st.sampled_from([(0, 1), (1, 2), (2, 3)]),
        crops=st.sampled_from([None, 2]),
    )
    def test_a_feed_that_begins_anywhere_goes_on_like_one_from_the_start(
        self, first: int, batch_size: int, shared: tuple[int, int], crops: int | None
    ) -> None:
        """Whatever the accumulation, the epoch and the number of processes: a batch is its number."""
        dataset = [Sample(str(n), "x" * n, Path("none")) for n in range(7)]
        chosen = Chosen(dataset, (Bucket(16, 16, (0, 2, 4, 6)), Bucket(24, 16, (1, 3, 5))))
        config = from_mapping(
            RunConfig,
            {
                "model": "none",
                "dataset": {"name": "none"},
                "output_dir": "none",
                "data": {"crop": "random", "crops": crops, "posterior": "sample", "workers": 0},
                "training": {"batch_size": batch_size},
            },
        )
        whole, resumed = (Feed(Fixed(), chosen, config, CPU, *shared) for _ in range(2))
        before = list(whole.batches(0, first + 5))
        for batch, other in zip(before[first:], resumed.batches(first, first + 5), strict=True):
            assert (batch.ids, batch.size, batch.number) == (other.ids, other.size, other.number)
            assert torch.equal(batch.clean, other.clean)
            assert torch.equal(batch.noise, other.noise)
            assert torch.equal(batch.sigma, other.sigma)
            assert torch.equal(batch.conditioning.tensors["length"], other.conditioning.tensors["length"])

    def test_noise_levels_have_the_shift_of_their_bucket(self, backbone: Any, photos: Path, run_config: Config) -> None:
        """Width and height in this order; without a function the number of the settings, or 1."""
        dataset = square(photos, 3)

        def shift(width: int, height: int) -> float:
            return {(16, 16): 2.0, (20, 16): 5.0}[width, height]

        plain, fixed, shifted = (
            self.feed(backbone, dataset, self.config(run_config, flow=flow), **more)
            for flow, more in (({"shift": "auto"}, {}), ({"shift": 3.0}, {}), ({"shift": 3.0}, {"shift_at": shift}))
        )
        for number in range(6):
            sigma = plain.batch(number).sigma
            assert torch.equal(fixed.batch(number).sigma, shift_sigma(sigma, 3.0))
            batch = shifted.batch(number)
            assert torch.equal(batch.sigma, shift_sigma(sigma, shift(*batch.size)))

    def test_pictures_that_are_held_out_are_never_trained(
        self, backbone: Any, photos: Path, run_config: Config
    ) -> None:
        feed = self.feed(backbone, square(photos, 3), self.config(run_config, validation={"holdout": 3}))
        held = {feed.chosen.dataset[index].id for bucket in feed.chosen.buckets for index in bucket.held_out}
        shown = {name for number in range(20) for name in feed.batch(number).ids}
        assert len(held) == 3
        assert len(shown) == 5
        assert not held & shown

    def test_crops_of_a_picture_come_one_after_the_other(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        """With two of them every other epoch is alike, in a run of another seed, too."""
        cuts: dict[str, list[bytes]] = {}
        for seed in (0, 1):
            config = run_config(data={"crop": "random", "crops": 2}, training={"batch_size": 5}, seed=seed)
            feed = self.feed(backbone, dataset, config)
            for number in range(4):
                batch = feed.batch(number)
                for name, latent in zip(batch.ids, batch.clean, strict=True):
                    cuts.setdefault(name, []).append(latent.numpy().tobytes())
        for found in cuts.values():
            assert found == 4 * found[:2]
        assert any(found[0] != found[1] for found in cuts.values())


class TestPosterior:
    """Which latent of a picture is trained."""

    def feed(self, backbone: Any, dataset: Any, config: Any, source: Any) -> Feed:
        return Feed(source, choose_pictures(dataset, backbone, config), config, CPU)

    def test_the_mode_is_the_mean(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        batch = self.feed(backbone, dataset, run_config(), Fixed()).batch(0)
        assert batch.clean.dtype == torch.float32
        assert [latent.unique().tolist() for latent in batch.clean] == [[int(name[0])] for name in batch.ids]

    def test_a_sample_is_of_the_posterior_and_another_each_time(
        self, backbone: Any, dataset: Any, run_config: Config
    ) -> None:
        """Mean and deviation are the posterior's; the noise is that of the sample's number, and not the step's."""
        plain, config = (run_config(data={"posterior": which}) for which in ("mode", "sample"))
        feed, modes = (self.feed(backbone, dataset, c, Fixed()) for c in (config, plain))
        found = [feed.batch(number) for number in range(200)]
        noise = torch.cat([batch.clean - modes.batch(batch.number).clean for batch in found]) / math.exp(1)
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert noise.std().item() == pytest.approx(1, abs=0.01)
        assert len({tensor.numpy().tobytes() for tensor in noise}) == 400
        assert torch.equal(feed.batch(7).clean, found[7].clean)
        generator = torch.Generator().manual_seed(numbered_seed(0, "posterior", 2 * 7 + 1))
        assert noise[2 * 7 + 1].numpy() == pytest.approx(torch.randn(2, 8, 8, generator=generator).numpy(), abs=1e-5)
        assert all(torch.equal(batch.noise, modes.batch(batch.number).noise) for batch in found[:5])

    def test_where_there_is_no_variance_it_is_the_mean(self, backbone: Any, dataset: Any, run_config: Config) -> None:
        feed = self.feed(backbone, dataset, run_config(data={"posterior": "sample"}), Fixed(variance=False))
        assert [latent.unique().numel() for latent in feed.batch(0).clean] == [1, 1]

    def test_a_backbone_without_posteriors_is_refused_before_the_first_step(self, backbone: Any, dataset: Any) -> None:
        with pytest.raises(ConfigError, match="encodes modes only"):
            Encoding(backbone, dataset, "sample")

    def test_a_backbone_with_posteriors_is_asked_for_them(self, backbone: Any, dataset: Any) -> None:
        source = Encoding(backbone, dataset)
        view = View(1, Crop(16, 16))
        backbone.encode_posterior = lambda pixels: Posterior(backbone.encode_image(pixels), pixels)
        found = Encoding(backbone, dataset, "sample").latent(source.load(view))
        assert torch.equal(found.mean, source.latent(source.load(view)).mean)
        assert found.log_variance is not None
        assert source.latent(source.load(view)).log_variance is None
