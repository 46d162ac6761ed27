"""The demo, shortened: it leaves everything it promises, twice in a row, and never eats a foreign folder."""

from __future__ import annotations

import json

import pytest

from d4k import OutputError, Pipeline, demo
from d4k.evaluation import read_evaluation
from d4k.images import open_picture, picture_size, read_recipe


@pytest.fixture
def short(monkeypatch):
    """A demo of seconds: small pictures, few steps."""
    monkeypatch.setattr(demo, "SIZE", 64)
    monkeypatch.setattr(demo, "SAMPLING_STEPS", 1)
    monkeypatch.setattr(demo, "LOOK_STEPS", 1)
    monkeypatch.setattr(demo, "PHOTOS", ("astronaut", "retina"))


def test_it_leaves_pictures_scores_curve_and_configuration(short, tmp_path):
    """Run twice in a row: the second replaces the first."""
    said: list[str] = []
    for _ in range(2):
        outcome = demo.run_demo(tmp_path / "demo", steps=2, say=said.append)

    folder = tmp_path / "demo"
    for row in demo.ROWS:
        assert len(list((folder / row).glob("*.png"))) == 2
    assert read_recipe(folder / "after" / "0000-astronaut-seed0.png")["options"]["positions"] == "interpolate"
    sheet = picture_size(folder / "contact-sheet.png")
    assert sheet[0] > 2 * 64
    assert sheet[1] > len(demo.ROWS) * 64
    assert picture_size(folder / "loss.png")[0] > 500
    assert [path.name for path in sorted((folder / "run" / "validation").glob("step-*"))] == [
        f"step-{step:08d}" for step in range(3)
    ]
    assert picture_size(folder / "over-time.png")[0] > 3 * 64
    for row in demo.ROWS:
        assert read_evaluation(folder / "scores" / row).name == demo.ROWS[row]
    assert [evaluation.name for evaluation in outcome.evaluations] == list(demo.ROWS.values())
    assert (folder / "report" / "index.html").is_file()
    shown = json.loads((folder / "report" / "data.js").read_text().partition("=")[2].strip().rstrip(";"))
    assert [one["name"] for one in shown["sets"]] == list(demo.ROWS.values())
    scores = (folder / "scores.md").read_text()
    assert all(f"| {row} |" in scores for row in ("before", "stages, no training", "after fine-tuning"))
    assert (folder / "run" / "config.toml").is_file()
    assert outcome.run.steps == 2
    assert any("contact-sheet.png" in line for line in said)


def test_its_stages_end_at_the_size_of_the_other_rows_and_come_from_the_model_as_it_was(tmp_path, monkeypatch):
    """From the model's own size to the larger one; no weight of the run is in them."""
    monkeypatch.setattr(demo, "SIZE", 320)
    monkeypatch.setattr(demo, "BATCH", 1)
    monkeypatch.setattr(demo, "SAMPLING_STEPS", 2)
    monkeypatch.setattr(demo, "LOOK_STEPS", 1)
    monkeypatch.setattr(demo, "PHOTOS", ("retina",))
    outcome = demo.run_demo(tmp_path / "demo", steps=1, say=lambda _: None)

    [picture] = (outcome.folder / "stages").glob("*.png")
    recipe = read_recipe(picture)
    assert picture_size(picture) == (320, 320)
    assert [(stage["width"], stage["height"]) for stage in recipe["earlier"]] == [(256, 256)]
    pipe = Pipeline.from_pretrained("tiny-sd3", positions="interpolate")
    [again] = pipe.generate(recipe["prompt"], stages=(256, 320), steps=2, guidance=demo.GUIDANCE)
    assert again.tobytes() == open_picture(picture).tobytes()


def test_it_refuses_a_folder_that_is_not_a_demo(short, tmp_path):
    """A folder with other files in it is left alone."""
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(OutputError, match="not an earlier demo"):
        demo.run_demo(tmp_path, steps=1)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
