from __future__ import annotations

import pytest
import timm
import torch
import torch_fidelity
from torch import nn
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torchmetrics.image import FrechetInceptionDistance
from torchmetrics.image.fid import NoTrainInceptionV3

from d4k import CheckpointError
from d4k_fid.frechet import frechet_distances
from d4k_fid.metrics import FID, KID, FDDINOv2, Precision, Recall
from d4k_fid.networks import TIMM, WIDTH, features, placed, release

from .conftest import DINOV2, dinov2, published_names

CPU = torch.device("cpu")
INCEPTION = "inception-v3-compat"


class Pictures(Dataset):
    """A set as torch-fidelity reads it."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index]


@pytest.fixture(scope="module")
def rows(inception_file, pictures):
    """Of all pictures, as published at their own size."""
    metric = FID(weights=str(inception_file), size=64)
    metric.load(CPU)
    return metric.observe(image=pictures)


def test_scores_are_those_of_torch_fidelity_from_the_pixels_on(inception_file, pictures, rows):
    """It reads the same pictures and the same file of weights with its own loader, extractor and metrics."""
    expected = torch_fidelity.calculate_metrics(
        input1=Pictures(pictures[:5]),
        input2=Pictures(pictures[5:]),
        feature_extractor=INCEPTION,
        feature_layer_prc="2048",
        feature_extractor_weights_path=str(inception_file),
        cuda=False,
        batch_size=5,
        kid=True,
        kid_subsets=1,
        kid_subset_size=5,
        prc=True,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    score = {metric: metric().score(rows[:5], rows[5:]) for metric in (KID, Precision, Recall)}
    assert score[KID] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert score[Precision] == pytest.approx(expected["precision"], rel=1e-6)
    assert score[Recall] == pytest.approx(expected["recall"], rel=1e-6)
    assert rows.std(0).mean() > 0.01


@pytest.mark.parametrize("antialias", [False, True])
def test_features_are_those_of_torchmetrics(inception_file, pictures, antialias):
    """With its antialiasing and without, each named in the score."""
    extractor = NoTrainInceptionV3(INCEPTION, ["2048"], str(inception_file), antialias=antialias)
    metric = FID(weights=str(inception_file), size=64, antialias=antialias)
    metric.load(CPU)
    found = metric.observe(image=pictures[:2])
    torch.testing.assert_close(found, extractor(torch.stack(pictures[:2])), rtol=1e-4, atol=1e-6)
    assert metric.settings["antialias"] is antialias


class FirstFeatures(nn.Module):
    """Looks the features of pictures up, the first forty of them: torchmetrics would take the root of 2048 x 2048."""

    num_features = 40

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, numbers):
        return self.rows[numbers[:, 0, 0, 0].long(), :40].double()


def test_fid_is_that_of_torchmetrics_on_the_same_features(rows):
    """Of five pictures and five references."""
    metric = FrechetInceptionDistance(FirstFeatures(rows), input_img_size=(3, 1, 1)).set_dtype(torch.float64)
    numbers = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1).expand(10, 3, 1, 1)
    metric.update(numbers[5:], real=True)
    metric.update(numbers[:5], real=False)
    found = frechet_distances(rows[:5, :40], torch.ones(1, 5), rows[5:, :40]).item()
    assert found == pytest.approx(metric.compute().item(), rel=1e-4)


def test_a_picture_has_the_same_features_in_any_batch(inception_file, pictures):
    """So that processes may share pictures as they like."""
    network = placed(INCEPTION, inception_file, CPU)
    seen = [picture.repeat(1, 5, 5)[:, :299, :299] for picture in pictures[:2]]
    together = features(network, seen)
    assert torch.equal(together[1:], features(network, seen[1:]))
    assert not together.is_inference()


class Published(FeatureExtractorDinoV2):
    """torch-fidelity's extractor around a model that is here: its own constructor runs code from a network."""

    def __init__(self, model):
        FeatureExtractorBase.__init__(self, "dinov2-vit-s-14", ["dinov2"])
        self.feature_extractor_internal_dtype = torch.float32
        self.model = model


class ClassToken(nn.Module):
    """The output of DINOv2 at 224 pixels: positions are scaled by 16.1 / 37, as its repository does it."""

    def __init__(self, model):
        super().__init__()
        tensors = model.state_dict()
        table = tensors["embeddings.position_embeddings"]
        grid = table[0, 1:].T.reshape(1, 384, 37, 37)
        grid = nn.functional.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
        table = torch.cat([table[0, :1], grid[0].reshape(384, 256).T])[None]
        self.model = dinov2("dinov2-vit-s-14", 224)
        self.model.load_state_dict({**tensors, "embeddings.position_embeddings": table})

    def forward(self, pixels):
        return self.model(pixels).last_hidden_state[:, 0]


def test_dinov2_features_are_those_of_torch_fidelity_around_another_implementation(dinov2_small, dinov2_file, pictures):
    """Its resizing and normalisation, and the transformer of the transformers library with the same weights."""
    with torch.inference_mode():
        expected = Published(ClassToken(dinov2_small))(torch.stack(pictures[:2]))[0]
    metric = FDDINOv2(network="dinov2-vit-s-14", weights=str(dinov2_file), preprocessing="published", size=64)
    metric.load(CPU)
    found = metric.observe(image=pictures[:2])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("network", DINOV2)
def test_the_published_layout_of_dinov2_is_that_of_the_network(network):
    """Every tensor by name and shape, but for the mask of training and the table that is resized."""
    with torch.device("meta"):
        ours = timm.create_model(TIMM[network], num_classes=0, img_size=224).state_dict()
        theirs = published_names(dinov2(network).state_dict())
    del theirs["mask_token"], theirs["pos_embed"], ours["pos_embed"]
    assert {name: tensor.shape for name, tensor in ours.items()} == {k: t.shape for k, t in theirs.items()}
    assert WIDTH[network] == ours["norm.weight"].shape[0]


def test_metrics_share_one_network(inception_file):
    """Until it is released."""
    first, second = FID(weights=str(inception_file)), KID(weights=str(inception_file), preprocessing="clean")
    first.load(CPU)
    second.load(CPU)
    network = placed(INCEPTION, inception_file, CPU)
    assert first._placed is second._placed is network
    release()
    assert placed(INCEPTION, inception_file, CPU) is not network


@pytest.mark.parametrize(("network", "named"), [(INCEPTION, "Conv2d_1a_3x3"), ("dinov2-vit-s-14", "cls_token")])
def test_weights_of_another_network_are_refused(network, named, tmp_path):
    """The first tensor that does not fit is named."""
    file = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=f"does not hold the weights of {network}.*{named}"):
        placed(network, file, CPU)
