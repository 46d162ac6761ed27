from __future__ import annotations

import pytest
import torch
from torch import nn

from d4k import ConfigError, DataError, create
from d4k.testing import check_metric
from d4k_fid import base
from d4k_fid.metrics import FID, KID, FDDINOv2, PatchFID, Precision, Recall
from d4k_fid.networks import INPUT
from d4k_fid.pixels import cut_grid, cut_random
from d4k_fid.weights import WEIGHTS

CPU = torch.device("cpu")
NAMES = {
    "fid": FID,
    "kid": KID,
    "precision": Precision,
    "recall": Recall,
    "fd-dinov2": FDDINOv2,
    "patch-fid": PatchFID,
}
SMALL = {name: {"size": 64} for name in ("fid", "kid", "precision", "recall")}
PUBLISHED = WEIGHTS["inception-v3-compat"].sha256


class Means(nn.Module):
    """A network of a few features that needs no file: means of parts of a picture."""

    def __init__(self):
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)
        self.seen = []

    def forward(self, pixels):
        self.seen.append(tuple(pixels.shape))
        return nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1) * self.unit


@pytest.fixture
def network(monkeypatch, tmp_path):
    """Stands for the networks; returns what they would see."""
    network = Means()
    monkeypatch.setattr(base, "placed", lambda name, file, device: network.to(device))
    monkeypatch.setattr(base, "find_weights", lambda name, path, sha256: tmp_path)
    return network


def loaded(metric):
    metric.load(CPU)
    return metric


def rows(count, seed=0, width=16):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_is_registered(name):
    """`create("metric", name)` makes it."""
    assert type(create("metric", name)) is NAMES[name]


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_keeps_the_contract(name, network):
    """d4k's own contract check passes."""
    check_metric(NAMES[name](**SMALL.get(name, {})), size=300 if name == "patch-fid" else 128)


def test_four_metrics_share_their_rows():
    """One pass serves them all; its rows are others than those of patches and of DINOv2."""
    same, *others = (NAMES[name]().observation for name in NAMES)
    assert [other == same for other in others] == [True, True, True, False, False]


@pytest.mark.parametrize(
    "options", [{"preprocessing": "clean"}, {"fit": "squash"}, {"size": 4096}, {"antialias": True}]
)
def test_whatever_is_done_to_pictures_decides_rows_and_is_shown(options):
    """Each option."""
    metric = FID(**options)
    assert metric.observation != FID().observation
    assert metric.settings.items() >= options.items()


def test_settings_show_the_size_and_the_digest_and_no_path(tmp_path):
    """So that scores of two machines compare."""
    assert FID().settings == {
        "network": "inception-v3-compat",
        "weights": PUBLISHED,
        "preprocessing": "published",
        "fit": "crop",
        "size": 2048,
        "antialias": False,
    }
    file = tmp_path / "w.pth"
    file.write_bytes(b"weights")
    own = FID(weights=str(file))
    assert str(file) not in str(own.settings)
    assert own.settings["weights"] == own.observation["weights"] != PUBLISHED
    given = FID(weights=str(tmp_path / "none.pth"), sha256="0" * 64)
    assert given.observation["weights"] == "0" * 64
    assert KID().settings["pairs"] == "all"
    assert Recall().settings["neighbours"] == 3
    assert PatchFID().settings["patches"] == "grid"
    assert PatchFID(patches=20).settings.items() >= {"patches": 20, "seed": 0}.items()


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_there_are_scored_without_weights(name, monkeypatch):
    """Nothing is looked for on disk."""
    monkeypatch.setattr(base, "find_weights", None)
    metric = create("metric", name)
    assert metric.score(rows(8), rows(9, 1)) >= -1
    assert metric.remarks(8, 9)[:0] == ()
    assert metric.settings["weights"] == WEIGHTS[metric.network].sha256


@pytest.mark.parametrize(("name", "fewest"), [("fid", 2), ("kid", 2), ("precision", 4), ("recall", 4)])
def test_too_few_rows_are_an_error(name, fewest):
    """Of pictures or of references; as many as are needed will do."""
    metric = create("metric", name)
    assert metric.score(rows(fewest), rows(fewest, 1)) is not None
    for count, references in ((fewest - 1, 9), (9, fewest - 1)):
        with pytest.raises(DataError, match=f"{count} rows of pictures and {references} of references.* {fewest} of"):
            metric.score(rows(count), rows(references))
    with pytest.raises(DataError, match="0 of references"):
        metric.score(rows(9))


def test_remarks_say_that_few_pictures_bias_fid():
    """With 195 pictures in 2048 dimensions, and not with enough."""
    (said,) = FID().remarks(195, 195)
    assert "195 pictures and 195 references in 2048 dimensions" in said
    assert "biased upwards" in said
    assert "in 1024 dimensions" in FDDINOv2().remarks(5000, 195)[0]
    assert FID().remarks(2049, 2049) == ()
    assert "of 3 pictures" in PatchFID().remarks(3, 5)[0]
    assert Precision().remarks(5, 5) == ()
    assert "5 pictures and 6 references" in Recall().remarks(5, 6)[0]


def test_remarks_say_that_weights_are_not_the_published_ones(tmp_path):
    """Those of a file of one's own."""
    file = tmp_path / "w.pth"
    file.write_bytes(b"weights")
    assert "not the published ones" in KID(weights=str(file)).remarks(5, 5)[0]
    assert KID(weights=str(file), sha256=PUBLISHED).remarks(5, 5) == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_sees_pictures_of_its_input_size(name, network):
    """Whatever the sizes of the pictures; several at once."""
    metric = loaded(create("metric", name, **SMALL.get(name, {})))
    metric.observe(image=[torch.zeros(3, 300, 400, dtype=torch.uint8), torch.zeros(3, 500, 310, dtype=torch.uint8)])
    assert {shape[2:] for shape in network.seen} == {(INPUT[metric.network],) * 2}
    assert max(shape[0] for shape in network.seen) > 1


@pytest.mark.parametrize(("patches", "expected"), [("grid", [4, 2]), (5, [5, 5])])
def test_a_picture_gives_a_row_a_patch(network, patches, expected):
    """The features of each patch, in order, though more than a batch of them."""
    metric = loaded(PatchFID(patches=patches))
    images = [
        torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        for size in ((3, 400, 400), (3, 299, 500))
    ]
    found = metric.observe(image=images)
    assert [len(each) for each in found] == expected
    for each, image in zip(found, images, strict=True):
        cut = cut_grid(image) if patches == "grid" else cut_random(image, patches, 0)
        torch.testing.assert_close(each, nn.functional.adaptive_avg_pool2d(cut / 255, 4).flatten(1))


@pytest.mark.parametrize("name", ["fid", "patch-fid"])
def test_a_picture_that_is_none_is_an_error(name, network):
    """Its dtype and shape are named."""
    with pytest.raises(DataError, match=r"uint8 \(3, H, W\), got torch.float32 \(3, 300, 300\)"):
        loaded(create("metric", name)).observe(image=[torch.zeros(3, 300, 300)])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fid", {"size": 0}, "size"),
        ("fid", {"size": 2048, "preprocessing": "clean"}, "size and antialias belong to preprocessing 'published'"),
        ("kid", {"antialias": True, "preprocessing": "clean"}, "size and antialias belong"),
        ("fid", {"preprocessing": "paper"}, "preprocessing"),
        ("fid", {"fit": "pad"}, "fit"),
        ("fid", {"sha256": "0" * 64}, "weights"),
        ("fid", {"weights": "w.pth", "sha256": "6726825d"}, "sha256"),
        ("fd-dinov2", {"network": "inception"}, "network"),
        ("fd-dinov2", {"size": 224}, "size and antialias belong"),
        ("patch-fid", {"patches": "many"}, "patches"),
        ("patch-fid", {"patches": 0}, "patches"),
        ("patch-fid", {"patches": True}, "patches"),
        ("patch-fid", {"seed": 1}, "seed belongs to patches at random places"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, options, said):
    """Also those that would be ignored; the option is named."""
    with pytest.raises(ConfigError, match=said):
        create("metric", name, **options)
