"""Faulty files: each is named and counted, what can be measured is, and what cannot is left out and said."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from measure_cases import Mean
from PIL import Image

from d4k.errors import DataError
from d4k.evaluation import Evaluation, Measuring, find_subjects, measure, read_evaluation
from d4k.evaluation.faults import left_out_remark, look_at

SIDE = 24
RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)  # type: ignore[arg-type]
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def giant() -> bytes:
    """A PNG of 20000x20000 pixels, by its header."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def deep_colour() -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + RNG.bytes(6 * SIDE) for _ in range(SIDE))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def corrupt() -> bytes:
    """A PNG whose pixels are not what its checksum says."""
    content = bytearray(saved(NOISE, "PNG"))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(NOISE.resize((SIDE, SIDE // 2)), "JPEG", exif=exif)


LEFT_OUT: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("x.png", lambda: b"", "The file has no bytes."),
    "truncated": ("x.png", lambda: saved(NOISE, "PNG")[:900], "The file ends before its picture does."),
    "truncated jpeg": ("x.jpg", lambda: saved(NOISE, "JPEG")[:700], "The file ends before its picture does."),
    "truncated webp": ("x.webp", lambda: saved(NOISE, "WEBP")[:200], "The file ends before its picture does."),
    "truncated tiff": ("x.tif", lambda: saved(NOISE, "TIFF", compression=None)[:900], "The file ends before"),
    "truncated bmp": ("x.bmp", lambda: saved(NOISE, "BMP")[:900], "The file ends before its picture does."),
    "truncated header": ("x.png", lambda: saved(NOISE, "PNG")[:20], "The file ends before its picture does."),
    "unreadable": ("x.png", corrupt, "It cannot be decoded: "),
    "unreadable text": ("x.jpg", lambda: b"a picture of a cat", "It is no PNG, JPEG, WebP, TIFF or BMP picture."),
    "unreadable gif": ("x.png", lambda: saved(NOISE, "GIF"), "It is no PNG, JPEG, WebP, TIFF or BMP picture."),
    "giant": ("x.png", giant, "It has 20000x20000 pixels, and at most 300,000,000 are read."),
}
"""Kind, and what tells it from others -> name of the file, its bytes, what is said of it."""

FRAMES = [NOISE, NOISE.rotate(90), NOISE.rotate(180)]

MOVING = {"save_all": True, "append_images": FRAMES[1:]}

CONVERTED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "cmyk": ("x.jpg", lambda: saved(NOISE.convert("CMYK"), "JPEG"), "Its colours are CMYK"),
    "animated webp": ("x.webp", lambda: saved(NOISE, "WEBP", **MOVING), "It holds 3 pictures, of which the first is"),
    "animated png": ("x.png", lambda: saved(NOISE, "PNG", **MOVING), "It holds 3 pictures, of which the first is"),
    "animated tiff": ("x.tif", lambda: saved(NOISE, "TIFF", **MOVING), "It holds 3 pictures, of which the first is"),
    "deep": ("x.png", deep_colour, "It has more than 8 bits a channel"),
    "deep grey": (
        "x.png", lambda: saved(Image.fromarray(np.arange(SIDE**2, dtype=np.uint16).reshape(SIDE, SIDE)), "PNG"),
        "It has more than 8 bits a channel",
    ),
    "rotated": ("x.jpg", rotated, "It is stored turned or mirrored (EXIF orientation 6)"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures."""
    where = tmp_path / "pictures"
    where.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(where / f"{number}.png")
    return where


def measured(folder: Path, least: int = 1, **settings: object) -> Evaluation:
    metrics = {"mean": Mean(least=least)}
    return measure(find_subjects(folder), metrics, Measuring(device="cpu", resamples=0, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_cannot_be_measured_is_left_out_and_said(folder: Path, case: str) -> None:
    """The score is that of the others, and says how many were left out and why."""
    wanted = measured(folder).scores[0]
    name, content, said = LEFT_OUT[case]
    (folder / name).write_bytes(content())
    found = measured(folder)
    (fault,) = found.faults
    kind = case.split()[0]
    assert (fault.file, fault.kind, fault.left_out) == (str(folder / name), kind, True)
    assert fault.reason.startswith(said)
    assert (found.scores[0].value, found.scores[0].count) == (wanted.value, 2)
    assert found.scores[0].remarks == (f"1 of 3 pictures was left out: 1 {kind}.",)
    assert [picture.id for picture in found.pictures] == ["0", "1"]


def test_a_name_that_is_not_utf8_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Nothing could name it in `scores.json`; the others are measured."""
    shutil.copy(folder / "0.png", os.fsencode(folder) + b"/caf\xe9.png")
    found = measured(folder, output=tmp_path / "out")
    (fault,) = read_evaluation(tmp_path / "out").faults
    assert (fault.file, fault.kind) == ("../pictures/caf\\xe9.png", "unreadable")
    assert "rename it" in fault.reason
    assert len(found.pictures) == 2


@pytest.mark.parametrize("case", LEFT_OUT | CONVERTED)
def test_strict_refuses_every_fault(folder: Path, case: str) -> None:
    """By its name."""
    name, content, _ = (LEFT_OUT | CONVERTED)[case]
    (folder / name).write_bytes(content())
    with pytest.raises(DataError, match=rf"^1 fault in the files, .*{name} is {case.split()[0]}\. "):
        measured(folder, strict=True)


def test_strict_says_how_many_faults_there_are(folder: Path) -> None:
    """And names the first of them."""
    for name in ("x.png", "y.png"):
        (folder / name).touch()
    with pytest.raises(DataError, match=r"^2 faults in the files, and none is allowed: .*x\.png is empty\."):
        measured(folder, strict=True)
    for name in ("x.png", "y.png"):
        (folder / name).write_bytes(LEFT_OUT["truncated"][1]() + name.encode())
    with pytest.raises(DataError, match=r"^2 faults in the files, and none is allowed: .*x\.png is truncated\."):
        measured(folder, strict=True)


@pytest.mark.parametrize("case", CONVERTED)
def test_what_viewers_convert_is_measured_and_named(folder: Path, case: str) -> None:
    """As `open_picture` converts it; the score does not rest on fewer pictures."""
    from d4k.images import open_picture

    name, content, said = CONVERTED[case]
    (folder / name).write_bytes(content())
    found = measured(folder)
    (fault,) = found.faults
    assert (fault.kind, fault.left_out) == (case.split()[0], False)
    assert fault.reason.startswith(said)
    assert (found.scores[0].count, found.scores[0].remarks) == (3, ())
    seen = open_picture(folder / name)
    (picture,) = (picture for picture in found.pictures if picture.id == "x")
    assert (picture.width, picture.height) == seen.size
    assert picture.values["mean"] == pytest.approx(np.asarray(seen).mean())


def test_a_file_that_the_index_lists_is_missed(folder: Path) -> None:
    """And so is one that a link leads to in vain."""
    (folder / "index.jsonl").write_text('{"file": "gone.png", "prompt": "a cat", "seed": 3}\n')
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    found = measured(folder)
    assert [(Path(fault.file).name, fault.kind) for fault in found.faults] == [
        ("gone.png", "missing"),
        ("link.png", "missing"),
    ]
    assert found.scores[0].remarks == ("2 of 4 pictures were left out: 2 missing.",)


def test_duplicates_are_measured_once_and_counted(folder: Path) -> None:
    """Of the same bytes and prompt; of another prompt it is another picture of the set."""
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    found = measured(folder)
    (fault,) = found.faults
    assert (Path(fault.file).name, fault.kind, fault.left_out) == ("2.png", "duplicate", True)
    assert fault.reason == "It has the same bytes as 0.png, and the same prompt."
    assert found.scores[0].count == 2
    metric = Mean()
    other = measure(find_subjects(folder, ["a", "b", "c"]), {"mean": metric}, Measuring(device="cpu", resamples=0))
    assert (other.faults, other.scores[0].count, sum(metric.seen)) == ((), 3, 2)


def test_one_metric_cannot_measure_what_others_can(folder: Path, tmp_path: Path) -> None:
    """The picture is left out of that metric only, also when its rows are found again."""
    Image.new("RGB", (8, 8), "red").save(folder / "small.png")
    for _ in range(2):
        settings = Measuring(output=tmp_path / "out", device="cpu", resamples=0)
        metrics = {"strict": Large(least=10), "mean": Mean()}
        found = measure(find_subjects(folder), metrics, settings)
        strict, mean = found.scores
        assert (strict.count, mean.count) == (2, 3)
        assert (strict.remarks, mean.remarks) == (("1 of 3 pictures was left out: 1 unmeasurable.",), ())
        (fault,) = found.faults
        assert fault.reason == "strict cannot measure it: a picture is smaller than 10 pixels."
        small = found.pictures[2]
        assert (small.values.keys(), small.keys.keys()) == ({"mean"}, {"mean"})


class Large(Mean):
    """Rows of its own, since it measures fewer pictures."""

    @property
    def observation(self) -> dict[str, object]:
        return {"rows": "mean level", "least": self.least}


def test_no_picture_that_can_be_measured_is_an_error(folder: Path) -> None:
    """Of a metric, or at all."""
    with pytest.raises(DataError, match="^mean can measure none of 2 pictures: a picture is smaller than 99 pixels"):
        measured(folder, least=99)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(DataError, match=r"^none of 2 pictures can be measured; .*0\.png is truncated\. The file ends"):
        measured(folder)


def test_broken_files_are_not_decoded_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept beside the rows."""
    from d4k.evaluation import observe

    (folder / "x.png").write_bytes(saved(NOISE, "PNG")[:900])
    found = measured(folder, output=tmp_path / "out")
    monkeypatch.setattr(observe, "decode", lambda look: pytest.fail(f"{look.file} was decoded"))
    assert measured(folder, output=tmp_path / "out") == found


def test_remark_counts_each_kind() -> None:
    assert left_out_remark(["empty"], 1, "reference picture") == "1 of 1 reference picture was left out: 1 empty."
    assert left_out_remark(["giant", "empty", "giant"], 9) == "3 of 9 pictures were left out: 2 giant, 1 empty."


def test_a_folder_with_the_name_of_a_picture_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    flaw = look_at(tmp_path / "a.png").flaw
    assert flaw is not None
    assert (flaw.kind, flaw.reason) == ("unreadable", "It cannot be read: Is a directory.")
    assert look_at(Path("a\0b.png")).flaw is not None
