"""Batches by number: the same on every call, whatever came before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d4k import Sample
from d4k.datasets import FolderDataset
from d4k.errors import ConfigError, DataError
from d4k.flow import sample_sigma
from d4k.images import Crop, open_picture, to_float, to_tensor
from d4k.training import Encoding, Feed, choose_pictures

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
