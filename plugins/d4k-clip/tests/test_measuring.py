"""The scores as d4k measures a set of pictures with them: rows, intervals, settings, and a comparison."""

from __future__ import annotations

import pytest
import torch

from d4k import create
from d4k.evaluation import Measuring, Subject, measure
from d4k.images import save_picture, to_picture
from d4k_clip import tower


@pytest.fixture
def subjects(tmp_path):
    """Six pictures with prompts, every other one long."""
    generator = torch.Generator().manual_seed(4)
    made = []
    for number in range(6):
        file = tmp_path / f"{number}.png"
        save_picture(to_picture(torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8, generator=generator)), file)
        made.append(Subject(str(number), file, prompt="a tree " * (60 if number % 2 else 1)))
    return made


def test_measuring_keeps_rows_and_gives_scores_with_their_settings(tiny, subjects, tmp_path, monkeypatch):
    """The model is read once for three metrics; measured again nothing is read, and the scores are the same."""
    reads = []
    monkeypatch.setattr(tower, "read_weights", lambda *given, read=tower.read_weights: reads.append(1) or read(*given))

    def again():
        metrics = {
            "clip-score": create("metric", "clip-score", **tiny.options),
            "parts": create("metric", "clip-score", long_captions="chunks", **tiny.options),
            "hpsv2": create("metric", "hpsv2", **tiny.options),
        }
        return measure(subjects, metrics, Measuring(output=tmp_path / "out", device="cpu"))

    first = again()
    assert len(reads) == 1
    assert again().scores == first.scores
    assert len(reads) == 1
    score, parts, _ = first.scores
    assert score.interval[0] < score.value < score.interval[1]
    assert score.details == {"long-captions": 3}
    assert (score.settings["long_captions"], parts.settings["long_captions"]) == ("truncate", "chunks")
    assert score.value != parts.value
    assert "open_clip_torch" in score.versions
    short = first.pictures[0].values
    assert short["clip-score"] == short["parts"]
