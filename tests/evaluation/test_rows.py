"""Rows that are read: those of every picture, from a store that may be missing, damaged or somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, reload
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from PIL import Image
from torch import Tensor

from d4k.errors import DataError
from d4k.evaluation import Evaluation, Measuring, find_subjects, measure, read_references, read_rows
from d4k.evaluation.rows import Observer


@frozen
class Patches:
    """A metric of several rows a picture: the mean of each line of pixels, in float32."""

    needs = frozenset({"image", "references"})
    higher_is_better = None
    unit = ""
    least: int = 1

    def load(self, device: torch.device) -> None: ...

    def observe(self, image: Sequence[Tensor]) -> list[Tensor]:
        if any(picture.shape[1] < self.least for picture in image):
            raise DataError("too small")
        return [picture.float().mean((0, 2))[:, None].repeat(1, 3) for picture in image]

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        assert references is not None
        return float(rows.mean() - references.mean())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of 2, 3 and 4 lines."""
    where = tmp_path / "pictures"
    where.mkdir()
    for lines in (2, 3, 4):
        pixels = np.random.default_rng(lines).integers(0, 256, (lines, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(where / f"{lines}.png")
    return where


def measured(folder: Path, output: Path, least: int = 1) -> Evaluation:
    settings = Measuring(output=output, references=sorted(folder.glob("*.png"))[1:], device="cpu", resamples=0)
    return measure(find_subjects(folder), {"patches": Patches(least)}, settings)


def test_each_picture_has_its_rows(folder: Path, tmp_path: Path) -> None:
    """As they were observed, in their dtype; likewise of the references."""
    found = measured(folder, tmp_path / "out")
    rows = read_rows(tmp_path / "out", found, "patches")
    assert [(row.dtype, tuple(row.shape)) for row in rows] == [(torch.float32, (lines, 3)) for lines in (2, 3, 4)]
    with Image.open(folder / "3.png") as picture:
        assert rows[1][:, 0].tolist() == pytest.approx(np.asarray(picture).mean((1, 2)).tolist(), rel=1e-6)
    references = read_references(tmp_path / "out" / "scores.json", found, "patches")
    assert all(torch.equal(one, other) for one, other in zip(references, rows[1:], strict=True))
    assert found.scores[0].references == 2


def test_a_picture_that_was_not_measured_has_no_rows(folder: Path, tmp_path: Path) -> None:
    """Its place is kept."""
    found = measured(folder, tmp_path / "out", least=3)
    assert [tuple(row.shape) for row in read_rows(tmp_path / "out", found, "patches")] == [(0, 3), (3, 3), (4, 3)]


def test_rows_of_another_metric_or_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    """And no folder is made where there is none."""
    found = measured(folder, tmp_path / "out")
    with pytest.raises(DataError, match="holds no rows of other; measure it"):
        read_rows(tmp_path / "out", found, "other")
    assert read_references(tmp_path / "out", found, "other") == []
    for rows in ("", "../elsewhere", "a\0b"):
        with pytest.raises(DataError, match="measure again with --output"):
            read_rows(tmp_path / "out", evolve(found, rows=rows), "patches")
    assert not (tmp_path / "elsewhere").exists()
    strange = evolve(found, pictures=(evolve(found.pictures[0], keys={"patches": "00" * 16}),))
    with pytest.raises(DataError, match=r"picture 2 \(patches\) is not in rows .*out/rows; measure again"):
        read_rows(tmp_path / "out", strange, "patches")


def test_messages_of_rows_do_not_speak_of_a_cache(folder: Path, tmp_path: Path) -> None:
    """A damaged entry, a damaged index, a folder that cannot be made."""
    found = measured(folder, tmp_path / "out")
    (shard,) = (tmp_path / "out" / "rows" / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[-2] ^= 0xFF
    shard.write_bytes(bytes(content))
    (tmp_path / "broken" / "rows").mkdir(parents=True)
    (tmp_path / "broken" / "rows" / "index.sqlite").write_bytes(b"no index" * 99)
    (tmp_path / "file").touch()
    said = []
    for output in (tmp_path / "out", tmp_path / "broken", tmp_path / "file"):
        with pytest.raises((DataError, OSError)) as error:
            measured(folder, output)
        said.append(str(error.value))
    assert "Remove the folder" in said[0]
    assert "remove that file" in said[1]
    assert "name another folder for the output" in said[2]
    assert not any("cache" in words for words in said)
    assert found.scores


def test_the_key_of_a_row_is_that_of_what_it_depends_on() -> None:
    """Metrics of the same observation and needs share it, and no others do."""

    def key(**changes: Any) -> str:
        class One(Patches):
            needs = frozenset(changes.get("needs", {"image"}))
            observation = changes.get("observation", {"rows": 1})

        return Observer("x", One()).id

    assert key() == key(needs={"image", "references"})
    assert len({key(), key(observation={"rows": 2}), key(needs={"image", "prompt"})}) == 3


def test_a_class_that_was_changed_has_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a metric has no observation of its own, its code counts."""
    monkeypatch.syspath_prepend(tmp_path)
    code = "class M:\n    needs = frozenset({'image'})\n    def observe(self, image):\n        return %s\n"
    (tmp_path / "changing_metric.py").write_text(code % 1)
    module = import_module("changing_metric")
    before, again = (Observer("m", module.M()).id for _ in range(2))
    (tmp_path / "changing_metric.py").write_text(code % "1 + 1")
    assert before == again != Observer("m", reload(module).M()).id
