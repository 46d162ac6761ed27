"""A build from end to end: what is in, what is out and why, and that nothing is looked at twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from build_cases import content, fill, photo, settings
from PIL import Image

from d4k import ConfigError, DataError, OutputError
from d4k.datasets.build import BuildSettings, Built, build
from d4k.images import open_picture


def run(sources, output, chosen=None, **more) -> Built:
    listed = sources if isinstance(sources, list) else [sources]
    return build(listed, output, chosen or settings(), **{"workers": 1, "quiet": True, **more})


def rows(output: Path) -> list[dict]:
    return pq.read_table(output / "decisions.parquet").to_pylist()


def metadata(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture
def opened(monkeypatch) -> list:
    """Every call of PIL.Image.open, which nothing decodes without."""
    calls = []
    original = Image.open

    def open_(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(Image, "open", open_)
    return calls


def test_a_dataset_holds_the_pictures_byte_for_byte_and_says_what_they_are(tmp_path):
    photos, out = fill(tmp_path / "photos", 4), tmp_path / "out"
    (photos / "00.txt").write_text("a caption\n")
    built = run(photos, out)
    assert built.counts.outcomes == {"kept": 4, "apart": 0, "rejected": 0, "broken": 0}
    lines = metadata(out / "train")
    assert [line.get("text") for line in lines] == ["a caption", None, None, None]
    for line, row in zip(lines, rows(out), strict=True):
        file = out / "train" / line["file_name"]
        assert file.read_bytes() == (photos / Path(row["id"]).name).read_bytes()
        assert file.samefile(row["path"])
        assert (line["width"], line["height"]) == (64, 48) == (row["width"], row["height"])
        assert line["sha256"] == row["sha256"]
        assert row["grey.grey"] == pytest.approx(np.asarray(open_picture(file).convert("L")).mean())
        assert (row["decision"], row["split"], row["file_name"]) == ("kept", "train", f"train/{line['file_name']}")
    record = json.loads((out / "build.json").read_text())
    assert record["format"] == 1
    assert record["filters"]["grey"]["options"] == {"max_grey": 200.0, "power": 1}
    assert record["counts"]["outcomes"]["kept"] == 4


def test_copies_are_files_of_their_own(tmp_path):
    photos, out = fill(tmp_path / "photos", 1), tmp_path / "out"
    for how, same in (("link", True), ("copy", False)):
        run(photos, out, settings(place=how))
        file = out / "train" / metadata(out / "train")[0]["file_name"]
        assert file.samefile(photos / "00.png") == same
        assert file.read_bytes() == (photos / "00.png").read_bytes()


def test_a_second_run_over_an_unchanged_source_opens_nothing_and_changes_nothing(tmp_path, opened):
    photos, out = fill(tmp_path / "photos", 3), tmp_path / "out"
    (photos / "broken.jpg").write_bytes(b"no picture")
    first = run(photos, out)
    assert (first.read, first.decoded) == (4, 4)
    before, log = content(out), (out / "scan.jsonl").read_bytes()
    opened.clear()
    second = run(photos, out)
    assert (second.read, second.decoded, opened) == (0, 0, [])
    assert content(out) == before
    assert (out / "scan.jsonl").read_bytes() == log


def test_a_file_that_was_touched_or_moved_is_read_and_not_decoded(tmp_path, opened):
    photos, out = fill(tmp_path / "photos", 3), tmp_path / "out"
    run(photos, out)
    opened.clear()
    os.utime(photos / "00.png", ns=(1, 1))
    (photos / "01.png").rename(photos / "moved.png")
    again = run(photos, out)
    assert (again.read, again.decoded, opened) == (2, 0, [])


def test_changed_content_under_the_same_name_and_size_is_noticed(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in (1, 2):
        Image.fromarray(np.asarray(photo(number))).save(photos / "a.bmp")  # of equal size, whatever it shows
        built = run(photos, out, settings(place="copy"))
        assert built.decoded == 1
        (line,) = metadata(out / "train")
        assert (out / "train" / line["file_name"]).read_bytes() == (photos / "a.bmp").read_bytes()
        assert len(list((out / "train" / "images").iterdir())) == 1


def test_moving_a_limit_decodes_nothing_and_another_measure_decodes_again(tmp_path, opened):
    photos, out = fill(tmp_path / "photos", 3), tmp_path / "out"
    run(photos, out)
    opened.clear()
    strict = run(photos, out, settings(filters={"grey": {"max_grey": 1.0}}))
    assert (strict.decoded, opened) == (0, [])
    assert strict.counts.reasons["grey"] == 3
    assert strict.decisions[0].reason.startswith("grey 1")
    assert strict.decisions[0].reason.endswith(", at most 1")
    assert not any((out / "train" / "images").iterdir())
    squared = run(photos, out, settings(filters={"grey": {"max_grey": 1e9, "power": 2}}))
    assert squared.decoded == 3
    assert run(photos, out).decoded == 0


def test_broken_files_are_counted_and_named_whatever_is_wrong_with_them(tmp_path):
    photos, out = fill(tmp_path / "photos", 1), tmp_path / "out"
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("not a picture")
    (photos / "cut.png").write_bytes((photos / "00.png").read_bytes()[:200])
    (photos / "folder.jpg").mkdir()
    (photos / "lost.webp").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.png")
    (photos / "notes.md").write_text("of the photographer")
    built = run(photos, out)
    reasons = {Path(d.listed.id).name: d.reason for d in built.decisions if d.outcome == "broken"}
    assert set(reasons) == {"empty.png", "text.jpg", "cut.png", "folder.jpg", "lost.webp", "pipe.png"}
    assert reasons["folder.jpg"] == "it is a folder, not a file"
    assert reasons["pipe.png"] == "it is no regular file"
    assert reasons["text.jpg"] == "cannot be read as PNG, JPEG, WebP, TIFF or BMP"
    assert all(reasons.values())
    assert not any("THE FILE" in reason for reason in reasons.values())
    assert built.counts.others == {".md": 1}
    assert [row["decision"] for row in rows(out)].count("broken") == 6


def test_any_mode_depth_and_orientation_is_measured_as_a_viewer_shows_it(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(1).save(photos / "turned.jpg", exif=exif)
    photo(2).convert("CMYK").save(photos / "cmyk.jpg")
    deep = np.random.default_rng(3).integers(0, 65536, (48, 64), dtype=np.uint16)
    Image.fromarray(deep).save(photos / "deep.png")
    photo(4).quantize(8).save(photos / "palette.png")
    built = run(photos, out)
    found = {Path(d.listed.id).name: d for d in built.decisions}
    assert {d.outcome for d in built.decisions} == {"kept"}
    assert (found["turned.jpg"].seen.width, found["turned.jpg"].seen.height) == (48, 64)
    for name, decision in found.items():
        upright = open_picture(photos / name)
        assert (decision.seen.width, decision.seen.height) == upright.size
        assert decision.seen.figures["grey"]["grey"] == np.asarray(upright.convert("L")).mean()
        assert (out / decision.file_name).read_bytes() == (photos / name).read_bytes()


def test_of_duplicates_the_licensed_then_the_largest_stays(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    large = photo(1, 512, 384)
    large.save(photos / "large.png")
    large.resize((256, 192)).save(photos / "small.jpg", quality=80)
    large.rotate(90, expand=True).save(photos / "turned.png")
    photo(2, 512, 384).save(photos / "other.png")
    built = run(photos, out)
    assert built.counts.reasons["duplicates"] == 2
    decided = {Path(d.listed.id).name: d for d in built.decisions}
    assert decided["small.jpg"].duplicate_of in ("photos/large.png", "photos/turned.png")
    assert decided["small.jpg"].reason == f"the same picture as {decided['small.jpg'].duplicate_of}"
    (photos / "metadata.jsonl").write_text('{"file_name": "small.jpg", "license": "CC0"}\n')
    licensed = run(photos, out, settings(no_licence="apart"))
    assert [d.listed.id for d in licensed.decisions if d.outcome == "kept"] == ["photos/small.jpg"]
    assert [d.listed.id for d in licensed.decisions if d.outcome == "apart"] == ["photos/other.png"]


def test_what_has_no_licence_is_kept_apart_unless_the_user_says_otherwise(tmp_path):
    photos, out = fill(tmp_path / "photos", 3), tmp_path / "out"
    (photos / "metadata.jsonl").write_text('{"file_name": "01.png", "license": "CC0", "author": "Ada"}\n')
    built = run(photos, out, settings(no_licence="apart"))
    assert [d.outcome for d in built.decisions] == ["apart", "kept", "apart"]
    (line,) = metadata(out / "train")
    assert (line["licence"], line["author"]) == ("CC0", "Ada")
    assert len(metadata(out / "kept-apart" / "train")) == 2
    assert run(photos, out, settings(no_licence="keep")).counts.outcomes["kept"] == 3
    assert metadata(out / "kept-apart" / "train") == []
    given = run(photos, out, settings(no_licence="apart", licence="CC-BY-4.0"))
    assert [d.listed.licence for d in given.decisions] == ["CC-BY-4.0", "CC0", "CC-BY-4.0"]
    assert given.counts.outcomes["kept"] == 3


def test_captions_that_were_written_since_stay(tmp_path):
    photos, out = fill(tmp_path / "photos", 2), tmp_path / "out"
    run(photos, out)
    file = out / "train" / "metadata.jsonl"
    first, second = metadata(out / "train")
    file.write_text(json.dumps({**first, "text": "captioned"}) + "\n" + json.dumps(second) + "\n")
    run(photos, out, settings(eval=0.5))
    texts = {line["sha256"]: line.get("text") for split in ("train", "eval") for line in metadata(out / split)}
    assert texts == {first["sha256"]: "captioned", second["sha256"]: None}


def test_processes_find_what_one_finds(tmp_path):
    photos = fill(tmp_path / "photos", 5)
    (photos / "broken.jpg").write_bytes(b"no picture")
    run(photos, tmp_path / "one")
    run(photos, tmp_path / "two", workers=2)
    assert content(tmp_path / "two") == content(tmp_path / "one")


KILLED = """
import os, sys
import build_cases
from d4k.plugins import discovery
from types import SimpleNamespace
made_by = SimpleNamespace(name="d4k-grey", version="1.0")
point = SimpleNamespace(name="grey", dist=made_by, load=lambda: build_cases.GreyPlugin)
discovery.entry_points = lambda group: [point]
from d4k.datasets.build import build
for number in map(int, sys.argv[3:]):  # one start of Python for all
    pid = os.fork()
    if pid == 0:
        build_cases.LAST["left"] = number
        build([sys.argv[1]], f"{sys.argv[2]}/{number}", build_cases.settings(eval=2), workers=1, quiet=True)
        os._exit(0)
    print(number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_a_build_that_was_killed_at_any_picture_goes_on_to_the_identical_end(tmp_path):
    photos = fill(tmp_path / "photos", 6)
    points = [0, *map(int, np.random.default_rng(0).choice(range(1, 6), 2, replace=False))]
    paths = [str(Path(__file__).parents[2] / "cases"), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(photos), str(tmp_path), *map(str, points)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "D4K_PLUGINS": "grey"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [word for n in points for word in (str(n), str(-signal.SIGKILL))], done.stderr
    run(photos, tmp_path / "whole", settings(eval=2))
    for number in points:
        out = tmp_path / str(number)
        with (out / "scan.jsonl").open("ab") as log:
            log.write(b'{"file": "/half a li')  # what the last write of a killed process may leave
        rest = run(photos, out, settings(eval=2))
        assert rest.decoded == 6 - number
        assert content(out) == content(tmp_path / "whole")


def test_a_folder_of_something_else_is_not_written_into(tmp_path):
    photos = fill(tmp_path / "photos", 1)
    with pytest.raises(OutputError, match="exists and is not empty"):
        run(photos, photos.parent)
    run(photos, tmp_path / "out")
    with pytest.raises(ConfigError, match="lies in the output folder"):
        run(tmp_path / "out" / "train", tmp_path / "out")


def test_a_source_may_hold_the_dataset_and_other_files_in_its_folders_stay(tmp_path):
    photos = fill(tmp_path / "photos", 2)
    run(photos, photos / "dataset")
    mine = photos / "dataset" / "train" / "images" / "mine.png"
    shutil.copy(photos / "00.png", mine)
    assert len(run(photos, photos / "dataset").decisions) == 2
    assert mine.exists()


def test_a_picture_that_changes_between_scan_and_placing_is_an_error(tmp_path, monkeypatch):
    photos, out = fill(tmp_path / "photos", 1), tmp_path / "out"
    from d4k.datasets.build import run as module

    original = module.decide

    def decide(*args):
        photo(9).save(photos / "00.png")
        return original(*args)

    monkeypatch.setattr(module, "decide", decide)
    with pytest.raises(DataError, match="has changed since it was looked at"):
        run(photos, out)


def test_settings_that_cannot_be_are_refused_before_anything_is_made(tmp_path):
    photos, out = fill(tmp_path / "photos", 1), tmp_path / "out"
    for wrong, words in [
        ({"filters": {"gray": {}}}, "did you mean 'grey'"),
        ({"filters": {"grey": {"max_gray": 1}}}, "did you mean 'max_grey'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            run(photos, out, settings(**wrong))
    for wrong, words in [({"eval": 1.5}, "share from 0"), ({"no_licence": "drop"}, "apart"), ({"eval": True}, "share")]:
        with pytest.raises(ConfigError, match=words):
            BuildSettings(**wrong)
    with pytest.raises(ConfigError, match="allowed: process, ray"):
        run(photos, out, engine="spark")
    with pytest.raises(ConfigError, match="workers is 0"):
        run(photos, out, workers=0)
    assert not out.exists()
