"""A report as a whole: what it shows is what was measured, and what it cannot show is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from patch_metrics import Lightness, PatchPlugin, Warmth
from PIL import Image

from d4k import hookimpl
from d4k.errors import ConfigError, DataError, OutputError
from d4k.evaluation import Measuring, Subject, measure, read_evaluation, write_evaluation
from d4k.evaluation.figures import write_figures
from d4k.images import open_picture
from d4k.protocols import Score
from d4k.report import exports, openseadragon, write_report
from d4k.report.data import PREFIX
from d4k.report.write import ASSETS

PROMPTS = ["a cat", "<b>a dog</b> & 'co' </script>", "猫 \u2028 ñ"]
SIZE = (540, 44)


@pytest.fixture(autouse=True)
def installed(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The two metrics, and a viewer that needs no network, whether or not this installation has the real one."""
    install(light=PatchPlugin)
    viewer = tmp_path / "viewer"
    viewer.mkdir()
    (viewer / openseadragon.SCRIPT).write_text("// the viewer")
    (viewer / openseadragon.LICENCE).write_text("The licence of the viewer.\n")
    monkeypatch.setattr(openseadragon, "PACKAGED", viewer)
    monkeypatch.setattr(openseadragon, "is_whole", lambda folder: folder == viewer)
    monkeypatch.setattr(exports, "write_figures", lambda folder, *_: folder.mkdir())  # a second a report


def picture(file: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    """Coarse noise, so that patches differ."""
    rng = np.random.default_rng(seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, compress_level=1)
    return file


def evaluated(folder: Path, first: int, *, name: str = "", **more: Any) -> Path:
    """Three pictures, measured; `more`: metrics, prompts, references, about, size, count."""
    prompts, references = more.get("prompts", PROMPTS), more.get("references")
    size, count = more.get("size", SIZE), more.get("count", 3)
    subjects = [
        Subject(
            f"{number:02d}",
            picture(folder / "pictures" / f"{number:02d}.png", first + number, size),
            prompts[number % 3] if prompts else None,
            seed=first + number,
            reference=references[number] if references else None,
        )
        for number in range(count)
    ]
    metrics = more.get("metrics", {"lightness": Lightness(), "warmth": Warmth()})
    settings = Measuring(
        output=folder, device="cpu", resamples=20, name=name or folder.name, about=more.get("about", {})
    )
    measure(subjects, metrics, settings)
    return folder


def shown(report: Path) -> dict[str, Any]:
    """What the page reads."""
    text = (report / "data.js").read_text()
    found: dict[str, Any] = json.loads(text[len(PREFIX) : -2])
    return found


def pixels(report: Path, entry: dict[str, Any]) -> np.ndarray:
    """The picture that the deepest tiles of an entry make together."""
    tiles = entry["tiles"]
    level = tiles["levels"][tiles["maxLevel"]]
    whole = Image.new("RGB", (level["width"], level["height"]))
    for row in range(level["rows"]):
        for column in range(level["columns"]):
            file = report / tiles["path"] / str(tiles["maxLevel"]) / f"{column}_{row}.{level['format']}"
            whole.paste(open_picture(file), (column * tiles["tileSize"], row * tiles["tileSize"]))
    return np.asarray(whole)


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two systems of the same prompts."""
    return [evaluated(tmp_path / "a", 0, name="before"), evaluated(tmp_path / "b", 10, name="after")]


def test_the_page_shows_what_was_measured(tmp_path: Path, two: list[Path]) -> None:
    """Scores, values, prompts, seeds, hashes and pixels, as `scores.json` and the files have them."""
    index = write_report(tmp_path / "report", two, title="A & B")
    assert index == tmp_path / "report" / "index.html"
    data, evaluations = shown(index.parent), [read_evaluation(folder) for folder in two]
    assert (data["format"], data["title"], data["votes"]) == (1, "A & B", None)
    assert [(s["id"], s["name"], s["photograph"]) for s in data["sets"]] == [
        ("before", "before", False),
        ("after", "after", False),
    ]
    assert [m["name"] for m in data["metrics"]] == ["lightness", "warmth"]
    assert [(m["higherIsBetter"], m["set"], m["patch"]) for m in data["metrics"]] == [
        (True, False, 4),
        (None, False, None),
    ]
    for number, evaluation in enumerate(evaluations):
        for score, entry in zip(evaluation.scores, data["scores"][number], strict=True):
            assert entry["value"] == score.value
            assert score.interval is not None
            assert entry["interval"] == list(score.interval)
            assert entry["count"] == 3
    assert [row["prompt"] for row in data["rows"]] == PROMPTS
    for row, *measured in zip(data["rows"], *(evaluation.pictures for evaluation in evaluations), strict=True):
        for entry, own, folder in zip(row["pictures"], measured, two, strict=True):
            assert (entry["name"], entry["seed"], entry["sha256"]) == (Path(own.file).name, own.seed, own.sha256)
            assert (entry["width"], entry["height"]) == SIZE
            assert entry["values"] == dict(own.values)
            assert np.array_equal(pixels(index.parent, entry), np.asarray(open_picture(folder / own.file)))
            assert max(open_picture(index.parent / entry["thumb"]).size) == 384
    (comparison,) = [c for c in data["comparisons"] if c["metric"] == "lightness"]
    assert (comparison["a"], comparison["b"], comparison["count"]) == (0, 1, 3)
    difference = evaluations[1].scores[0].value - evaluations[0].scores[0].value
    assert comparison["difference"] == pytest.approx(difference)


def test_every_file_that_the_page_is_told_of_is_there_and_every_name_is_plain(tmp_path: Path) -> None:
    """Also where the names of systems and metrics are odd; the page itself and its viewer lie beside."""
    odd = "../x ü % # ?&<>'\""
    write_report(
        tmp_path / "report", [evaluated(tmp_path / "a", 0, name=odd), evaluated(tmp_path / "b", 9, name=odd + " ")]
    )
    data, told = shown(tmp_path / "report"), []
    for entry in (entry for row in data["rows"] for entry in row["pictures"]):
        told += [entry["thumb"], entry["heat"]["lightness"]["file"]]
        for number, level in enumerate(entry["tiles"]["levels"]):
            told += [
                f"{entry['tiles']['path']}/{number}/{column}_{row}.{level['format']}"
                for row in range(level["rows"])
                for column in range(level["columns"])
            ]
    found = {
        path.relative_to(tmp_path / "report").as_posix() for path in (tmp_path / "report").rglob("*") if path.is_file()
    }
    assert set(told) == {name for name in found if name.partition("/")[0] in ("tiles", "thumbs", "heat")}
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789./_-") for name in told)
    page = {path.name for path in ASSETS.iterdir() if path.suffix in (".html", ".js", ".css")}
    assert page | {"data.js", "openseadragon.min.js", "licences.txt"} <= found
    assert (tmp_path / "report" / "openseadragon.min.js").read_text() == "// the viewer"
    assert [s["name"] for s in data["sets"]] == [odd, odd + " "]


def test_photographs_come_first_where_every_picture_has_its_reference(tmp_path: Path) -> None:
    """Whether they were measured or not; one picture without a reference, and they are no column."""
    photographs = [picture(tmp_path / "photos" / f"p{number}.png", 50 + number) for number in range(3)]
    a = evaluated(tmp_path / "a", 0, references=photographs)
    b = evaluated(tmp_path / "b", 9, references=photographs)
    write_report(tmp_path / "report", [a, b])
    data = shown(tmp_path / "report")
    assert [(s["name"], s["photograph"]) for s in data["sets"]] == [("photographs", True), ("a", False), ("b", False)]
    assert data["scores"][0] == [None, None]
    for row, file in zip(data["rows"], photographs, strict=True):
        assert row["pictures"][0]["name"] == file.name
        assert row["pictures"][0]["values"] == {}
        assert np.array_equal(pixels(tmp_path / "report", row["pictures"][0]), np.asarray(open_picture(file)))
    assert {(c["a"], c["b"]) for c in data["comparisons"]} == {(1, 2)}

    subjects = [Subject(f"p{n}", file, PROMPTS[n]) for n, file in enumerate(photographs)]
    settings = Measuring(output=tmp_path / "real", device="cpu", resamples=20, name="real")
    measure(subjects, {"lightness": Lightness(), "warmth": Warmth()}, settings)
    write_report(tmp_path / "report", [a, b, tmp_path / "real"])
    data = shown(tmp_path / "report")
    assert [(s["name"], s["photograph"]) for s in data["sets"]] == [("real", True), ("a", False), ("b", False)]
    assert data["scores"][0][0]["value"] == read_evaluation(tmp_path / "real").scores[0].value
    assert data["rows"][1]["pictures"][0]["values"].keys() == {"lightness", "warmth"}
    assert {(c["a"], c["b"]) for c in data["comparisons"]} == {(0, 1), (0, 2), (1, 2)}

    write_report(tmp_path / "report", [a, evaluated(tmp_path / "c", 9)])
    assert [s["name"] for s in shown(tmp_path / "report")["sets"]] == ["a", "c"]


def test_a_folder_of_a_benchmark_stands_for_its_photographs_and_models(tmp_path: Path) -> None:
    """With the names that the evaluations have."""
    bench = tmp_path / "bench"
    photographs = [picture(bench / "photographs" / f"{n}.png", 50 + n) for n in range(3)]
    for number, name in enumerate(("m1", "m1-upscaled")):
        evaluated(bench / "models" / name, number, references=photographs)
    subjects = [Subject(str(n), file, PROMPTS[n]) for n, file in enumerate(photographs)]
    measure(
        subjects,
        {"lightness": Lightness()},
        Measuring(output=bench / "photographs", device="cpu", resamples=20, name="photographs"),
    )
    (bench / "manifest.json").write_text('{"kind": "d4k-benchmark", "format": 1, "models": [{"name": "m1"}]}')
    write_report(tmp_path / "report", [bench])
    assert [s["name"] for s in shown(tmp_path / "report")["sets"]] == ["photographs", "m1", "m1-upscaled"]


def test_heat_maps_of_a_row_have_one_scale_and_the_patches_are_those_of_the_map(
    tmp_path: Path, two: list[Path]
) -> None:
    """Made again with the settings of the scores."""
    write_report(tmp_path / "report", two)
    data = shown(tmp_path / "report")
    for row, name in zip(data["rows"], ("00.png", "01.png", "02.png"), strict=True):
        maps = [Lightness().patch_map(_tensor(folder / "pictures" / name)).numpy() for folder in two]
        for entry, scores in zip(row["pictures"], maps, strict=True):
            heat, patches = entry["heat"]["lightness"], entry["patches"]["lightness"]
            assert (heat["columns"], heat["rows"]) == (135, 11)
            assert heat["low"] == pytest.approx(min(m.min() for m in maps))
            assert heat["high"] == pytest.approx(max(m.max() for m in maps))
            with Image.open(tmp_path / "report" / heat["file"]) as image:
                assert (image.size, image.mode) == ((135, 11), "RGBA")
            for kind, extreme in (("worst", scores.min()), ("best", scores.max())):
                assert len(patches[kind]) == 6
                assert patches[kind][0]["value"] == pytest.approx(extreme)
                for patch in patches[kind]:
                    assert patch["value"] == pytest.approx(scores[patch["y"] // 4, patch["x"] // 4])
    assert data["notes"][-1] == "No heat maps of warmth: it does not score patches."


def _tensor(file: Path) -> Any:
    from d4k.images import to_tensor

    return to_tensor(open_picture(file))


def test_pictures_that_are_alike_share_their_tiles(tmp_path: Path) -> None:
    """By their hash, within a system and between them; each still has its own place."""
    a = evaluated(tmp_path / "a", 0)
    b = tmp_path / "b"
    subjects = []
    for number in range(3):
        file = b / f"{number}.png"
        b.mkdir(exist_ok=True)
        shutil.copyfile(a / "pictures" / "00.png", file)
        subjects.append(Subject(str(number), file, PROMPTS[number]))
    Image.new("RGB", SIZE, "red").save(b / "2.png")
    measure(subjects, {"lightness": Lightness()}, Measuring(output=b, device="cpu", resamples=20, name="b"))
    write_report(tmp_path / "report", [a, b])
    data = shown(tmp_path / "report")
    paths = [[p and p["tiles"]["path"] for p in row["pictures"]] for row in data["rows"]]
    assert paths[0][0] == paths[0][1]
    assert len(list((tmp_path / "report" / "tiles").iterdir())) == len({p for row in paths for p in row if p}) == 4


def test_an_earlier_report_is_replaced_and_its_tiles_are_taken_over(tmp_path: Path, two: list[Path]) -> None:
    """As links of the same files; pictures that are shown no longer are gone."""
    report = tmp_path / "report"
    write_report(report, two, title="first")
    before = {path.relative_to(report): path.stat().st_ino for path in report.rglob("*.png") if "tiles" in path.parts}
    write_report(report, two[:1], title="second")
    after = {path.relative_to(report): path.stat().st_ino for path in report.rglob("*.png") if "tiles" in path.parts}
    assert shown(report)["title"] == "second"
    assert 0 < len(after) < len(before)
    assert after.items() <= before.items()


@pytest.mark.parametrize("kind", ["file", "other", "votes.json", "notes.html", "tiles/thesis/thesis.tex"])
def test_what_is_no_report_is_not_replaced(tmp_path: Path, two: list[Path], kind: str) -> None:
    """A file, a folder of something else, and a report with a file of the user's anywhere in it."""
    report = tmp_path / "report"
    message = "is no report of d4k"
    if kind == "file":
        report.write_text("mine")
    elif kind == "other":
        report.mkdir()
        (report / "data.js").write_text("let mine = 1;")
    else:
        write_report(report, two[:1])
        (report / kind).parent.mkdir(exist_ok=True)
        (report / kind).write_text("mine")
        message = f"also holds {kind}, which d4k did not write"
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=message):
        write_report(report, two)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_the_size_of_a_picture_is_that_of_its_file(tmp_path: Path, two: list[Path]) -> None:
    """Not what a hand wrote into `scores.json`, after which tiles without end would be looked for."""
    report = write_report(tmp_path / "report", two[:1]).parent
    wanted = shown(report)["rows"][0]["pictures"][0]
    scores = two[0] / "scores.json"
    content = json.loads(scores.read_text())
    content["pictures"][0]["width"] = 10**12
    scores.write_text(json.dumps(content))
    assert shown(write_report(report, two[:1]).parent)["rows"][0]["pictures"][0] == wanted


def test_pictures_that_are_gone_or_changed_are_refused_with_their_place(tmp_path: Path, two: list[Path]) -> None:
    """Counted, and the first of them named; nothing is written."""
    (two[1] / "pictures" / "01.png").rename(tmp_path / "elsewhere.png")
    (two[1] / "pictures" / "02.png").unlink()
    with pytest.raises(DataError, match=r"^2 of the pictures .* of 'after', is looked for at .*01\.png") as caught:
        write_report(tmp_path / "report", two)
    assert str((two[1] / "pictures" / "01.png").resolve()) in str(caught.value)
    picture(two[1] / "pictures" / "01.png", 77)
    (two[1] / "pictures" / "02.png").write_bytes((two[0] / "pictures" / "02.png").read_bytes())
    with pytest.raises(DataError, match=r"^2 of the pictures are not those that were measured.* is .*01\.png"):
        write_report(tmp_path / "report", two)
    assert not (tmp_path / "report").exists()


def test_evaluations_that_moved_as_a_whole_are_found(tmp_path: Path, two: list[Path]) -> None:
    """Paths in `scores.json` are relative to it."""
    (tmp_path / "moved").mkdir()
    moved = [folder.rename(tmp_path / "moved" / folder.name) for folder in two]
    write_report(tmp_path / "report", moved)
    assert len(shown(tmp_path / "report")["rows"]) == 3


def test_what_is_no_evaluation_is_refused_by_name(tmp_path: Path) -> None:
    """A folder that is not there, or holds no scores; and no folder at all."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds neither scores.json nor"):
        write_report(tmp_path / "report", [tmp_path / "empty"])
    with pytest.raises(DataError, match="there is no folder .*missing"):
        write_report(tmp_path / "report", [tmp_path / "missing"])
    with pytest.raises(DataError, match="at least one folder"):
        write_report(tmp_path / "report", [])
    assert not (tmp_path / "report").exists()


def test_scores_of_other_settings_are_refused_and_the_setting_is_named(tmp_path: Path, two: list[Path]) -> None:
    """A table would put figures side by side that cannot be compared."""
    other = evaluated(tmp_path / "c", 0, metrics={"lightness": Lightness(scale=2.0)})
    with pytest.raises(ConfigError, match="lightness: scale is 1.0 in before and 2.0 in c"):
        write_report(tmp_path / "report", [two[0], other])


def test_systems_with_other_metrics_and_pictures_are_shown_beside_each_other(tmp_path: Path) -> None:
    """The union, with null where there is nothing: metrics, prompts, and no prompts at all."""
    a = evaluated(tmp_path / "a", 0, metrics={"lightness": Lightness()})
    b = evaluated(tmp_path / "b", 10, metrics={"lightness": Lightness(), "warmth": Warmth()}, prompts=None, count=4)
    write_report(tmp_path / "report", [a, b])
    data = shown(tmp_path / "report")
    assert [m["name"] for m in data["metrics"]] == ["lightness", "warmth"]
    assert data["scores"][0][1] is None
    assert data["scores"][1][1] is not None
    assert [row["prompt"] for row in data["rows"]] == [*PROMPTS, None]  # by the id, since b has no prompts
    assert [p is not None for p in data["rows"][3]["pictures"]] == [False, True]
    assert data["histograms"]["warmth"]["counts"][0] == [0] * 5
    assert sum(data["histograms"]["warmth"]["counts"][1]) == 4
    assert len(data["histograms"]["lightness"]["edges"]) == 6


def test_one_system_without_prompts_is_a_report_too(tmp_path: Path) -> None:
    """There is nothing to compare it with."""
    write_report(tmp_path / "report", [evaluated(tmp_path / "a", 0, prompts=None)])
    data = shown(tmp_path / "report")
    assert (len(data["sets"]), data["comparisons"]) == (1, [])
    assert [(row["id"], row["prompt"]) for row in data["rows"]] == [("00", None), ("01", None), ("02", None)]


def test_a_metric_that_nobody_registers_here_is_shown_without_maps_and_differences(
    tmp_path: Path, two: list[Path], install: Callable[..., None]
) -> None:
    """With a warning that says so, and a note on the page."""

    class Half:
        @staticmethod
        @hookimpl
        def register_metrics(register: Any) -> None:
            register("warmth", "patch_metrics:Warmth", summary="red minus blue")

    install(half=Half)
    with pytest.warns(UserWarning, match="of lightness: unknown metric 'lightness'") as said:
        write_report(tmp_path / "report", two)
    assert len(said) == 2
    data = shown(tmp_path / "report")
    assert ([c["metric"] for c in data["comparisons"]], data["scores"][0][0]["count"]) == (["warmth"], 3)
    assert all(p["heat"] == {} for row in data["rows"] for p in row["pictures"])
    assert data["notes"][0].startswith("No differences of lightness: unknown metric 'lightness'")
    install()
    with pytest.warns(UserWarning, match="unknown metric"):
        write_report(tmp_path / "report", two)
    assert shown(tmp_path / "report")["comparisons"] == []


def test_pictures_that_are_too_small_for_a_patch_are_counted(tmp_path: Path) -> None:
    """They have no heat map, and the page says how many."""
    a = evaluated(tmp_path / "a", 0, size=(3, 3), metrics={"warmth": Warmth()})
    measured = read_evaluation(a)
    write_evaluation(a, attrs.evolve(measured, scores=(Score("lightness", 1.0, "", 3, True),)))
    write_report(tmp_path / "report", [a])
    data = shown(tmp_path / "report")
    assert data["rows"][0]["pictures"][0]["heat"] == {}
    assert any(note.startswith("3 pictures have no heat map of lightness") for note in data["notes"])


def test_licences_are_those_that_evaluations_name_or_unknown(tmp_path: Path) -> None:
    """Of models and datasets, however deep; the viewer's in full."""
    about = {
        "model": {"name": "m", "license": "openrail++"},
        "dataset": {"licence": "CC-BY"},
        "steps": 28,
        "size": [1, 2],
    }
    write_report(tmp_path / "report", [evaluated(tmp_path / "a", 0, about=about), evaluated(tmp_path / "b", 9)])
    data = shown(tmp_path / "report")
    assert [s["licence"] for s in data["sets"]] == ["openrail++, CC-BY", "unknown"]
    assert data["sets"][0]["about"] == {
        "model": '{"name": "m", "license": "openrail++"}',
        "dataset": '{"licence": "CC-BY"}',
        "steps": "28",
        "size": "[1, 2]",
    }
    licences = {entry["name"]: entry["text"] for entry in data["licences"]}
    assert licences["a: model"] == "openrail++"
    assert licences["b"] == "unknown"
    assert "The licence of the viewer.\n" in licences.values()
    assert "The licence of the viewer." in (tmp_path / "report" / "licences.txt").read_text()


def test_tables_and_figures_for_a_paper_are_in_the_folder(
    tmp_path: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures of `scores.json`, also where a system lacks a metric; the page links them."""
    third = evaluated(tmp_path / "c", 20, metrics={"warmth": Warmth()})
    monkeypatch.setattr(exports, "write_figures", write_figures)
    write_report(tmp_path / "report", [*two, third])
    report = tmp_path / "report"
    systems = json.loads((report / "scores.json").read_text())["systems"]
    scores = {system["name"]: system["scores"] for system in systems}
    lightness, _ = read_evaluation(two[0]).scores
    assert [score["metric"] for score in scores["c"]] == ["warmth"]
    assert scores["before"][0]["value"] == lightness.value
    comparison = json.loads((report / "comparison.json").read_text())
    assert [(d["metric"], d["a"], d["b"]) for d in comparison["differences"]] == [
        ("lightness", "before", "after"),
        ("warmth", "before", "after"),
        ("warmth", "before", "c"),
        ("warmth", "after", "c"),
    ]
    lines = [line.split("|") for line in (report / "table.md").read_text().splitlines() if line.startswith("|")]
    table = {line[1].strip(): line for line in lines[2:5]}
    place = next(n for n, title in enumerate(lines[0]) if "warmth" in title)
    for folder in (*two, third):
        measured = read_evaluation(folder)
        shown_there = table[measured.name][place].split()[0]
        assert float(shown_there) == pytest.approx(measured.scores[-1].value, rel=0.2)
    assert r"\toprule" in (report / "table.tex").read_text()
    assert {"scores.png", "differences.pdf", "histograms.png"} <= {path.name for path in (report / "figures").iterdir()}


def test_votes_are_shown_as_a_share_of_each_pair(tmp_path: Path, two: list[Path]) -> None:
    """Read from what the page exported; votes for a system that is not shown are refused."""
    vote = {"row": "00", "prompt": None, "a": "before", "b": "after", "choice": "b", "left": "a", "seconds": 1.5}
    votes = [vote, {**vote, "row": "01", "choice": "tie"}]
    votes.append({**vote, "row": "02", "a": "after", "b": "before", "choice": "b", "left": "b"})
    content = {"format": 1, "kind": "d4k-votes", "report": "x", "created": "2026-11-25T00:00:00Z", "voter": "v"}
    file = tmp_path / "votes.json"
    file.write_text(json.dumps({**content, "votes": votes}))
    write_report(tmp_path / "report", two, votes=file)
    everything = shown(tmp_path / "report")["votes"]
    assert (everything["people who voted"], everything["left picture preferred"]["share"]) == (1, 0.5)
    told = everything["after preferred to before"]
    assert (told["votes"], told["for"], told["against"], told["ties"], told["share"]) == (3, 1, 1, 1, 0.5)
    file.write_text(json.dumps({**content, "votes": [{**vote, "a": "others"}]}))
    with pytest.raises(DataError, match="a is 'others', which is not compared"):
        write_report(tmp_path / "report", two, votes=file)
    file.write_text("{}")
    with pytest.raises(DataError, match=r"votes\.json"):
        write_report(tmp_path / "report", two, votes=file)
    assert shown(tmp_path / "report")["votes"] is not None


def test_more_than_a_hundred_rows_are_written(tmp_path: Path) -> None:
    """Prompts that repeat are rows of their own, with names of their own."""
    write_report(tmp_path / "report", [evaluated(tmp_path / "a", 0, count=105, size=(16, 12))])
    rows = shown(tmp_path / "report")["rows"]
    assert len({row["id"] for row in rows}) == len(rows) == 105
    assert rows[104]["pictures"][0]["tiles"]["maxLevel"] == 0


def test_without_the_viewer_nothing_is_begun(tmp_path: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says where it is to be had."""
    monkeypatch.undo()
    monkeypatch.setattr(openseadragon, "PACKAGED", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(openseadragon.VARIABLE, str(tmp_path / "openseadragon.tgz"))
    with pytest.raises(OutputError, match=r"cannot read .*openseadragon\.tgz"):
        write_report(tmp_path / "report", two)


def test_a_report_that_fails_leaves_the_earlier_one(
    tmp_path: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the disk is full when the last file is written."""
    write_report(tmp_path / "report", two, title="first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("d4k.report.write.shutil.copyfile", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_report(tmp_path / "report", two, title="second")
    assert shown(tmp_path / "report")["title"] == "first"
    assert not list(tmp_path.glob(".d4k-*"))
