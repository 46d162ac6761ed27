from __future__ import annotations

import random
import sys
import types
from hashlib import sha256

import numpy as np
import pytest
import torch

from d4k import CheckpointError, DataError, create
from d4k.evaluation import score_rows
from d4k.testing import check_metric
from d4k_pyiqa.metrics import Maniqa, Musiq, Niqe, NoReference

NAMES = {
    "pyiqa-musiq": "musiq",
    "pyiqa-maniqa": "maniqa",
    "pyiqa-topiq-nr": "topiq_nr",
    "pyiqa-liqe": "liqe",
    "pyiqa-clipiqa": "clipiqa",
    "pyiqa-qalign": "qalign",
    "pyiqa-hyperiqa": "hyperiqa",
    "pyiqa-dbcnn": "dbcnn",
    "pyiqa-niqe": "niqe",
    "pyiqa-ilniqe": "ilniqe",
    "pyiqa-brisque": "brisque",
}
LOWER = {"niqe", "ilniqe", "brisque"}


class StandIn(torch.nn.Module):
    """Has what pyiqa documents of a metric: `lower_better`, `metric_mode`, and a call on (1, 3, H, W) in [0, 1]."""

    def __init__(self, name, device, **options):
        super().__init__()
        self.name, self.device, self.options = name, device, options
        self.lower_better, self.metric_mode = name in LOWER, "NR"

    def forward(self, pixels):
        assert pixels.dim() == 4, "Input must be 4D tensor (B, C, H, W)"
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        if min(pixels.shape[2:]) < 32:
            raise AssertionError("the picture is too small")
        value = pixels.diff(dim=3).abs().mean()
        if self.name == "maniqa":  # looks at random places, by three generators
            places = [torch.rand(()).item(), random.random(), np.random.rand()]
            value = value + 0.01 * sum(places)
        return value.reshape(1, 1)


@pytest.fixture
def pyiqa(monkeypatch):
    """A module named pyiqa with the documented `create_metric`."""
    module = types.ModuleType("pyiqa")
    module.made = []

    def create_metric(metric_name, as_loss=False, device=None, **options):
        module.made.append(StandIn(metric_name, device, **options))
        return module.made[-1]

    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


@pytest.fixture
def without(monkeypatch):
    """Importing pyiqa fails, as it does where it is not installed."""
    monkeypatch.setitem(sys.modules, "pyiqa", None)


def picture(seed=0, size=64):
    return torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def loaded(metric):
    metric.load(torch.device("cpu"))
    return metric


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_keeps_the_contract(name, pyiqa):
    """d4k's own contract check passes, and pyiqa is asked for the metric of that name."""
    check_metric(create("metric", name))
    assert [made.name for made in pyiqa.made] == [NAMES[name]]


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_points_where_pyiqa_says(name):
    """Lower is better of the three that measure a distance, higher of the others."""
    assert create("metric", name).higher_is_better == (NAMES[name] not in LOWER)


def test_a_row_is_what_pyiqa_says_of_the_picture(pyiqa):
    """Pixels arrive as RGB in [0, 1], on the device that was given, one picture at a time."""
    pictures = [picture(0), picture(1, 80)]
    rows = loaded(Musiq()).observe(pictures)
    wanted = [[float(StandIn("musiq", None)((each / 255)[None]))] for each in pictures]
    torch.testing.assert_close(rows, torch.tensor(wanted, dtype=torch.float64))
    assert pyiqa.made[0].device == torch.device("cpu")


def test_random_crops_are_the_same_each_time_and_disturb_nobody(pyiqa):
    """MANIQA's value of a picture does not depend on what was drawn before, and leaves the generators as they were."""
    metric = loaded(Maniqa())
    first = metric.observe([picture()])
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    again = metric.observe([picture(1), picture()])[1:]
    drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    assert drawn == [random.random(), np.random.rand(), torch.rand(()).item()]
    assert torch.equal(first, again)


def test_without_pyiqa_loading_says_how_to_get_it_and_what_its_licence_is(without):
    """In one line; and what needs no pyiqa works."""
    metric = create("metric", "pyiqa-topiq-nr")
    with pytest.raises(
        CheckpointError, match="pyiqa-topiq-nr needs pyiqa.*pip install pyiqa.*non-commercial"
    ) as caught:
        metric.load(torch.device("cpu"))
    assert "\n" not in str(caught.value)
    assert metric.score(torch.tensor([[1.0], [3.0]])) == 2
    assert metric.observation["metric"] == "topiq_nr"


def test_a_pyiqa_that_cannot_be_imported_is_named_with_its_reason(monkeypatch, tmp_path):
    """What it lacks is not pyiqa itself."""
    (tmp_path / "pyiqa.py").write_text("import a_module_that_is_not_there\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyiqa", raising=False)
    with pytest.raises(CheckpointError, match="pyiqa is installed, but cannot be imported: .*a_module_that_is_not"):
        Musiq().load(torch.device("cpu"))


def test_weights_that_cannot_be_had_say_where_to_put_them(pyiqa, monkeypatch):
    """Whatever pyiqa raises becomes a line that names the folder."""

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(pyiqa, "create_metric", refuse)
    with pytest.raises(CheckpointError, match="cannot make 'musiq': OSError: no route to host.*hub/pyiqa"):
        Musiq().load(torch.device("cpu"))


def test_weights_of_ones_own_are_given_to_pyiqa_and_named_in_the_score(pyiqa, tmp_path):
    """The file is read in place of pyiqa's; its digest decides the rows."""
    file = tmp_path / "musiq.pth"
    file.write_bytes(b"weights")
    metric = loaded(create("metric", "pyiqa-musiq", weights=str(file)))
    assert pyiqa.made[0].options == {"pretrained_model_path": str(file)}
    assert metric.settings["weights"] == sha256(b"weights").hexdigest()
    assert metric.observation != Musiq().observation
    with pytest.raises(CheckpointError, match="no file of weights"):
        Musiq(weights=str(tmp_path / "gone.pth")).load(torch.device("cpu"))


def test_a_metric_that_points_the_other_way_is_refused(pyiqa):
    """Pyiqa's own word counts: a score in the wrong direction would be worse than none."""

    class Turned(NoReference):
        network = "niqe"

    with pytest.raises(CheckpointError, match="'niqe'.*lower is better, d4k-pyiqa the contrary"):
        Turned().load(torch.device("cpu"))


def test_a_picture_that_pyiqa_cannot_measure_is_an_error_of_the_picture(pyiqa, monkeypatch):
    """Too small, no finite value, or no picture of 8 bits."""
    metric = loaded(Niqe())
    with pytest.raises(DataError, match="niqe cannot measure a picture of 16x16 pixels: AssertionError: the picture"):
        metric.observe([picture(size=16)])
    with pytest.raises(DataError, match=r"uint8 \(3, H, W\), got"):
        metric.observe([torch.zeros(3, 64, 64)])
    monkeypatch.setattr(StandIn, "forward", lambda *_: torch.tensor([[float("nan")]]))
    with pytest.raises(DataError, match="niqe gave nan for a picture of 64x64"):
        metric.observe([picture()])


def test_running_out_of_memory_is_no_fault_of_the_picture(pyiqa, monkeypatch):
    """It is not turned into a picture that is left out."""
    metric = loaded(Musiq())

    def exhaust(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StandIn, "forward", exhaust)
    with pytest.raises(torch.OutOfMemoryError):
        metric.observe([picture()])


def test_a_score_names_the_licence(pyiqa):
    """Among its remarks, beside the settings."""
    metric = loaded(Niqe())
    score = score_rows("pyiqa-niqe", metric, [metric.observe([picture(seed)]) for seed in range(3)])
    assert "non-commercial" in score.remarks[0]
    assert (score.settings["network"], score.settings["weights"]) == ("niqe", "pyiqa's own")
    assert "pyiqa" in score.versions
    assert score.higher_is_better is False
