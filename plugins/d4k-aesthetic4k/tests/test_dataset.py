"""Aesthetic-4K: metadata lines become samples, and every defect is one error with file and line, or a counted skip."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4k import DataError, create
from d4k.testing import check_dataset
from d4k_aesthetic4k.dataset import Aesthetic4K

BOMB = struct.pack(">IIBBBBB", 20_000, 15_001, 8, 2, 0, 0, 0)


@pytest.fixture
def folder(tmp_path):
    """Three pictures of 40x30, 80x60 and 60x20, captioned in a `metadata.jsonl` at the root."""
    root = tmp_path / "data"
    root.mkdir()
    for name, size in (("one.png", (40, 30)), ("two.jpg", (80, 60)), ("below/three.png", (60, 20))):
        (root / name).parent.mkdir(exist_ok=True)
        Image.effect_noise(size, 50).convert("RGB").save(root / name)
    write(root, {"one.png": "a café", "two.jpg": "two", "below/three.png": "three"})
    return root


def write(folder: Path, captions: dict[str, str]) -> None:
    rows = [json.dumps({"file_name": name, "text": text}, ensure_ascii=False) for name, text in captions.items()]
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def add_line(folder: Path, line: bytes) -> None:
    with (folder / "metadata.jsonl").open("ab") as file:
        file.write(line + b"\n")


def add_bomb(folder: Path) -> bytes:
    header = b"IHDR" + BOMB
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "bomb.png").write_bytes(data + struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT")))
    return row("bomb.png")


def add_truncated(folder: Path) -> bytes:
    data = (folder / "two.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(data[: len(data) // 2])
    return row("half.jpg")


def add_text(folder: Path) -> bytes:
    (folder / "text.png").write_text("no picture")
    return row("text.png")


def add_escape(folder: Path) -> bytes:
    Image.new("RGB", (4, 4)).save(folder.parent / "outside.png")
    (folder / "link.png").symlink_to("../outside.png")
    return row("link.png")


def add_loop(folder: Path) -> bytes:
    (folder / "loop.png").symlink_to("loop.png")
    return row("loop.png")


def add_outside(folder: Path) -> bytes:
    Image.new("RGB", (4, 4)).save(folder.parent / "outside.png")
    return row("../outside.png")


def row(name: str) -> bytes:
    return json.dumps({"file_name": name, "text": "x"}).encode()


LINES: dict[str, tuple[bytes | Callable[[Path], bytes], str]] = {
    "not JSON": (b"{half", "it is not JSON"),
    "not UTF-8": (b'{"file_name": "one.png", "text": "caf\xe9"}', "it is not JSON"),
    "nested too deep": (b"[" * 100_000, "it is not JSON"),
    "not an object": (b'["one.png"]', "it holds a list"),
    "no text": (b'{"file_name": "one.png"}', "it has no 'text'; its keys are file_name"),
    "no file_name": (b"{}", "it has no 'file_name'; its keys are none"),
    "text of another type": (b'{"file_name": "one.png", "text": 7}', "'text' is 7, not a string"),
    "file_name of another type": (b'{"file_name": null, "text": "x"}', "'file_name' is None, not a string"),
    "empty name": (row(""), "picture '' does not exist"),
    "null byte": (row("a\0.png"), "a NUL"),
    "lone surrogate": (row("\ud800.png"), "half a character"),
    "missing": (row("gone.png"), "picture 'gone.png' does not exist"),
    "a folder": (row("below"), "picture 'below' does not exist"),
    "twice": (row("below/../one.png"), "is in line 1 already"),
    "up": (add_outside, "file_name '../outside.png' leaves the folder"),
    "up and back": (row("../data/one.png"), "leaves the folder"),
    "absolute": (row("/etc/hostname"), "leaves the folder"),
    "link that escapes": (add_escape, "file_name 'link.png' leaves the folder"),
    "loop of links": (add_loop, "loop.png"),
}
PICTURES: dict[str, tuple[bytes | Callable[[Path], bytes], str]] = {
    "bomb": (add_bomb, "20000x15001 pixels, more than the 300,000,000 allowed"),
    "no picture": (add_text, "cannot be read as"),
    "truncated": (add_truncated, "half.jpg cannot be read"),
}


def test_it_keeps_the_contract_of_a_dataset(folder):
    """Through the registry, as users make it."""
    check_dataset(create("dataset", "aesthetic-4k", source=folder))


def test_lines_become_samples(folder):
    """In their order; blank lines and a byte-order mark are nothing."""
    metadata = folder / "metadata.jsonl"
    metadata.write_bytes(b"\xef\xbb\xbf" + metadata.read_bytes().replace(b"\n", b"\r\n\r\n"))
    found = [(sample.id, sample.caption, sample.source) for sample in Aesthetic4K(folder)]
    assert found == [
        ("one.png", "a café", folder / "one.png"),
        ("two.jpg", "two", folder / "two.jpg"),
        ("below/three.png", "three", folder / "below" / "three.png"),
    ]


def test_names_that_begin_with_dots_stay_inside(folder):
    """Two dots at the start of a name are not a step up."""
    (folder / "one.png").rename(folder / "..one.png")
    write(folder, {"./..one.png": "x"})
    assert Aesthetic4K(folder)[0].id == "..one.png"


def test_pictures_are_not_opened_unless_an_option_asks(folder, monkeypatch):
    """Neither is anything read before the first use."""
    dataset = Aesthetic4K(folder / "later")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a picture was opened"))
    assert len(Aesthetic4K(folder)) == 3
    with pytest.raises(DataError, match="later is not a folder"):
        len(dataset)


@pytest.mark.parametrize(("line", "reason"), LINES.values(), ids=LINES)
def test_an_unusable_line_is_one_error_with_file_and_line(folder, line, reason):
    """Line 5, since line 4 is blank; the metadata is the file the line is in."""
    add_line(folder, b"")
    add_line(folder, line(folder) if callable(line) else line)
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 5: ") as caught:
        len(Aesthetic4K(folder))
    assert reason in str(caught.value)
    assert (caught.value.path, caught.value.line) == (folder / "metadata.jsonl", 5)


@pytest.mark.parametrize(("line", "reason"), PICTURES.values(), ids=PICTURES)
def test_verify_finds_unusable_pictures_with_file_and_line(folder, line, reason):
    """Bombs, texts and truncated pictures, each named with its line."""
    add_line(folder, line(folder))
    assert len(Aesthetic4K(folder)) == 4
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 4: ") as caught:
        len(Aesthetic4K(folder, verify=True))
    assert reason in str(caught.value)
    assert (caught.value.path, caught.value.line) == (folder / "metadata.jsonl", 4)


def test_every_defect_is_skipped_on_request_and_counted(folder):
    """One warning with the count; `skipped` has file, line and reason of each; the good pictures stay."""
    defects = {**LINES, **PICTURES}
    for line, _ in defects.values():
        add_line(folder, line(folder) if callable(line) else line)
    dataset = Aesthetic4K(folder, on_error="skip", verify=True)
    with pytest.warns(UserWarning, match=f"^{len(defects)} of {len(defects) + 3} lines") as caught:
        assert [sample.id for sample in dataset] == ["one.png", "two.jpg", "below/three.png"]
    assert len(caught) == 1
    for number, (reason, expected) in enumerate(zip(dataset.skipped, defects.values(), strict=True), start=4):
        assert f"metadata.jsonl, line {number}: " in reason
        assert expected[1] in reason


def test_skip_finds_bombs_by_their_headers_alone(folder):
    """Without `verify`, what a header shows is skipped; a truncated picture is not found."""
    for line, _ in PICTURES.values():
        add_line(folder, line(folder))
    dataset = Aesthetic4K(folder, on_error="skip")
    with pytest.warns(UserWarning, match="^2 of 6 lines"):
        assert [sample.id for sample in dataset][3:] == ["half.jpg"]


def test_a_dataset_of_nothing_but_defects_is_an_error(folder):
    """Skipping everything leaves no dataset; the first reason is shown."""
    write(folder, {"gone.png": "x"})
    with pytest.raises(DataError, match=r"1 skipped as unusable, 0 filtered by size; the first: .*gone\.png"):
        len(Aesthetic4K(folder, on_error="skip"))
    write(folder, {})
    with pytest.raises(DataError, match=r"leaves no picture: 0 skipped as unusable, 0 filtered by size$"):
        len(Aesthetic4K(folder))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"min_size": 30}, ["one.png", "two.jpg"]),
        ({"min_size": 31}, ["two.jpg"]),
        ({"max_size": 60}, ["one.png", "below/three.png"]),
        ({"max_size": 59}, ["one.png"]),
        ({"min_size": 20, "max_size": 80}, ["one.png", "two.jpg", "below/three.png"]),
        ({"min_size": 31, "verify": True}, ["two.jpg"]),
    ],
)
def test_the_size_filter_counts_short_and_long_sides(folder, options, kept):
    """`min_size` is the least short side, `max_size` the greatest long side, both included."""
    dataset = Aesthetic4K(folder, **options)
    assert [sample.id for sample in dataset] == kept
    assert len(dataset.filtered) == 3 - len(kept)
    assert dataset.skipped == []


def test_filtered_pictures_are_named_with_their_size(folder):
    """Nothing is left out in silence."""
    assert Aesthetic4K(folder, min_size=30).filtered == ["below/three.png: 60x20 pixels"]
    with pytest.raises(DataError, match="0 skipped as unusable, 3 filtered by size"):
        len(Aesthetic4K(folder, min_size=1000))


def test_a_header_the_filter_cannot_read_is_an_error_with_its_line(folder):
    """`max_pixels` is the limit of what counts as a picture."""
    with pytest.raises(DataError, match=r"line 2: .*80x60 pixels, more than the 4,799 allowed"):
        len(Aesthetic4K(folder, min_size=1, max_pixels=4799))


def test_splits_are_folders_and_the_root_is_train(folder):
    """Another split is never the root in disguise; what there is is listed."""
    (folder / "eval" / "4096").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "eval" / "4096" / "a.png")
    write(folder / "eval" / "4096", {"a.png": "x"})
    assert [sample.id for sample in Aesthetic4K(folder, "eval/4096")] == ["a.png"]
    with pytest.raises(DataError, match=r"no split 'val' .* there: train \(at the root\), eval/4096\."):
        len(Aesthetic4K(folder, "val"))
    (folder / "train").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "train" / "b.png")
    write(folder / "train", {"b.png": "x"})
    assert [sample.id for sample in Aesthetic4K(folder)] == ["b.png"]


@pytest.mark.parametrize("side", ["2048", "4096"])
def test_a_short_name_is_the_folder_of_the_published_dataset_unless_there_is_one_of_that_name(folder, side):
    """`eval-2048` is `eval/size_2048`; a folder `eval-2048` comes first."""
    for place, name in ((f"eval/size_{side}", "long.png"), (f"eval-{side}", "short.png")):
        (folder / place).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / place / name)
        write(folder / place, {name: "x"})
        assert [sample.id for sample in Aesthetic4K(folder, f"eval-{side}")] == [name]


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("split", "../other", "inside the source"),
        ("split", "/data", "inside the source"),
        ("split", "", "inside the source"),
        ("min_size", 0, "at least 1"),
        ("max_size", 2.5, "at least 1"),
        ("max_pixels", None, "at least 1"),
        ("max_pixels", True, "at least 1"),
        ("on_error", "ignore", "allowed: raise, skip"),
    ],
)
def test_options_out_of_range_are_refused(option, value, reason):
    """The message names the option, the value and what is allowed."""
    with pytest.raises(ValueError, match=f"{option} is {value!r}; .*{reason}"):
        Aesthetic4K(**{option: value})


@pytest.mark.parametrize(
    ("split", "patterns"),
    [
        ("train", None),
        ("eval", ["eval/*", "*metadata.jsonl"]),
        ("eval-2048", ["eval/size_2048/*", "*metadata.jsonl"]),
    ],
)
def test_a_hub_dataset_is_downloaded_on_first_use(folder, monkeypatch, split, patterns):
    """`train` may lie at the root and takes all; another split takes its folder and every metadata file."""
    calls = []

    def snapshot_download(name: str, **options: object) -> str:
        calls.append((name, options))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    (folder / "eval").symlink_to(folder)
    (folder / "size_2048").symlink_to(folder)
    dataset = Aesthetic4K("zhang0jhon/Aesthetic-Train-V2", split)
    assert calls == []
    assert len(dataset) == 3
    expected = {"repo_type": "dataset", "allow_patterns": patterns}
    assert calls == [("zhang0jhon/Aesthetic-Train-V2", expected)]


def test_offline_a_hub_dataset_that_is_not_cached_is_an_error(tmp_path, monkeypatch):
    """The Hub's own offline switch is honoured, and the way out is a local folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"'zhang0jhon/Aesthetic-4K' is not a folder here.*pass the local folder"):
        len(Aesthetic4K())


def test_links_of_the_hub_cache_do_not_leave_the_folder(folder, monkeypatch):
    """Offline, the cached snapshot is used: its pictures are links into `blobs`; links to elsewhere still escape."""
    repository = folder.parent / "datasets--zhang0jhon--Aesthetic-4K"
    snapshot = repository / "snapshots" / ("a" * 40)
    for path in (snapshot, repository / "blobs", repository / "refs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (folder / "one.png").rename(repository / "blobs" / "b1")
    (snapshot / "one.png").symlink_to("../../blobs/b1")
    write(snapshot, {"one.png": "x"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder.parent))
    check_dataset(Aesthetic4K())
    (snapshot / "two.jpg").symlink_to(folder / "two.jpg")
    write(snapshot, {"two.jpg": "x"})
    with pytest.raises(DataError, match=r"file_name 'two\.jpg' leaves the folder"):
        len(Aesthetic4K(snapshot))


def test_the_home_folder_may_be_written_as_a_tilde(folder, monkeypatch):
    """As in a shell."""
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(Aesthetic4K("~/data")) == 3


def test_pictures_open_with_their_pixels(folder):
    """What a sample points to is what was written."""
    from d4k.images import open_picture

    with Image.open(folder / "one.png") as stored:
        np.testing.assert_array_equal(np.asarray(open_picture(Aesthetic4K(folder)[0].source)), np.asarray(stored))


ODD = [
    "null", "5", "true", "[]", "{}", '""', '"\\ud800"', '"a\\u0000b"', '"../x"', '"/etc/passwd"', "NaN", "9" * 5000,
    "[" * 2000 + "]" * 2000, json.dumps("x" * 5000), json.dumps("x/" * 5000), '"."', '"loop"', '"file/x"',
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", ["file_name", "text", "other", "line"])
def test_any_value_in_a_line_is_good_or_a_data_error(tmp_path, place, odd):
    """Whatever stands at any key, or in place of the line."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    row = json.dumps({"file_name": "a.png", "text": "a cat", "other": 1, place: "<here>"})
    line = odd if place == "line" else row.replace('"<here>"', odd)
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    try:
        dataset = Aesthetic4K(tmp_path)
        samples = [dataset[i] for i in range(len(dataset))]
    except DataError:
        return
    assert [sample.id for sample in samples] == ["a.png"]
    samples[0].caption.encode("utf-8")


@pytest.mark.parametrize("source", ["x" * 5000, "a\0b", "file/x", "loop/x"])
def test_a_source_that_cannot_be_is_a_data_error(tmp_path, monkeypatch, source):
    """Too long, with a NUL, below a file, in a loop of links."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError):
        len(Aesthetic4K(tmp_path / source))
    with pytest.raises(DataError):
        len(Aesthetic4K(tmp_path, split=source.replace("/", "-")))


def test_metadata_that_may_not_be_read_is_a_data_error(tmp_path, monkeypatch):
    """The file and the reason are named."""
    (tmp_path / "metadata.jsonl").write_text("{}")

    def refuse(path, *rest):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot read .*metadata\.jsonl: Permission denied"):
        len(Aesthetic4K(tmp_path))
