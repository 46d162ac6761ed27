"""Where OpenSeadragon comes from, in which order, and what is refused."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path

import pytest

from d4k.report import openseadragon as osd

WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="the made-up npm is a shell script")
CONTENTS = {osd.SCRIPT: b"the viewer", osd.LICENCE: b"its licence"}


def tarball(path: Path, contents: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def sha512(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an `npm` of one's own on the PATH."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin{os.pathsep}/usr/bin")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up tarball whose hashes are the pinned ones, in a home without anything, offline."""
    path = tarball(tmp_path / "made.tgz", {osd.FILES[name][0]: data for name, data in CONTENTS.items()})
    files = {name: (osd.FILES[name][0], hashlib.sha256(data).hexdigest()) for name, data in CONTENTS.items()}
    monkeypatch.setattr(osd, "FILES", files)
    monkeypatch.setattr(osd, "INTEGRITY", sha512(path.read_bytes()))
    monkeypatch.setattr(osd, "PACKAGED", tmp_path / "package")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv(osd.VARIABLE, raising=False)
    return path


def test_the_module_needs_the_standard_library_only() -> None:
    """The build loads it by its path, before d4k or anything else is installed."""
    tree = ast.parse(Path(osd.__file__).read_text(encoding="utf-8"))
    modules = {n.names[0].name for n in ast.walk(tree) if isinstance(n, ast.Import)}
    modules |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names


def test_two_files_are_taken_out_of_the_tarball_and_nothing_else(made: Path, tmp_path: Path) -> None:
    """Into a folder that is replaced as a whole."""
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    (folder / "old.js").touch()
    assert not osd.is_whole(folder)
    osd.extract(made, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS
    assert osd.is_whole(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    (folder / osd.SCRIPT).write_bytes(b"the viewer, changed")
    assert not osd.is_whole(folder)


@pytest.mark.parametrize("kind", ["missing", "other", "cut", "without", "changed"])
def test_a_wrong_tarball_is_refused_and_nothing_is_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One that is not there, one of another hash, and ones whose hash is right but whose content is not."""
    names = [osd.FILES[name][0] for name in CONTENTS]
    path, message = (
        tmp_path / "wrong.tgz",
        {"missing": "cannot read", "other": "must be sha512-"}.get(kind, "cannot take OpenSeadragon out of"),
    )
    if kind == "other":
        tarball(path, {names[0]: b"evil", names[1]: b"its licence"})
    elif kind == "cut":
        path.write_bytes(made.read_bytes()[:40])
    elif kind == "without":
        tarball(path, {names[0]: b"the viewer"})
    elif kind == "changed":
        tarball(path, {names[0]: b"evil", names[1]: b"its licence"})
        message = "openseadragon.min.js in .* has another hash"
    if kind in ("cut", "without", "changed"):
        monkeypatch.setattr(osd, "INTEGRITY", sha512(path.read_bytes()))
    with pytest.raises(osd.OpenSeadragonError, match=message):
        osd.extract(path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_package_comes_first_then_the_named_file_then_the_cache(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user names is taken or refused, and never passed over for what is in the cache."""
    monkeypatch.setenv(osd.VARIABLE, str(made))
    cached = osd.locate()
    assert cached.is_relative_to(tmp_path / "cache")
    assert osd.is_whole(cached)
    monkeypatch.delenv(osd.VARIABLE)
    made.unlink()
    assert osd.locate() == cached
    osd.provide(osd.PACKAGED)  # from the cache
    monkeypatch.setenv(osd.VARIABLE, str(made))
    assert osd.locate() == osd.PACKAGED
    (osd.PACKAGED / osd.SCRIPT).unlink()
    (cached / osd.SCRIPT).unlink()
    with pytest.raises(osd.OpenSeadragonError, match=r"cannot read .*made\.tgz"):
        osd.locate()


def test_without_it_one_line_says_which_file_to_take_and_where_to_name_it(made: Path) -> None:
    """Offline, with or without npm."""
    with pytest.raises(osd.OpenSeadragonError) as caught:
        osd.locate()
    assert f"(HF_HUB_OFFLINE is set). Where there is a network, run npm pack openseadragon@{osd.VERSION}" in str(
        caught.value
    )
    assert f"D4K_OPENSEADRAGON=/path/to/openseadragon-{osd.VERSION}.tgz" in str(caught.value)
    assert "\n" not in str(caught.value)


@WINDOWS
def test_npm_is_asked_for_the_pinned_version_and_what_it_brings_is_checked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`npm pack`, into a folder of its own; then the cache holds it and npm is not asked again."""
    npm(tmp_path / "bin", monkeypatch, f'echo "$@" >> {tmp_path}/asked; cp {made} "$4"')
    assert osd.is_whole(osd.locate())
    assert osd.is_whole(osd.locate())
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith(f"pack openseadragon@{osd.VERSION} --pack-destination ")
    assert asked.endswith(" --ignore-scripts")


@WINDOWS
@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'npm error network' >&2; exit 1", r"\(npm gave npm error network\)"),
        ("exit 1", r"\(npm gave no reason\)"),
        ("exit 0", r"\(npm wrote no tarball\)"),
        ('echo other > "$4"/other.tgz', "is not the tarball of OpenSeadragon"),
    ],
)
def test_what_npm_does_wrong_is_said(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    """In one line, with the way around it."""
    npm(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(osd.OpenSeadragonError, match=message):
        osd.locate()
    assert not osd.is_whole(osd.PACKAGED)


def test_without_npm_on_the_path_that_is_said(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that a program is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(osd.OpenSeadragonError, match=r"\(npm is not on the PATH\)"):
        osd.locate()


def test_a_cache_that_cannot_be_written_is_said(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a file lies in its way."""
    (tmp_path / "cache").touch()
    monkeypatch.setenv(osd.VARIABLE, str(made))
    with pytest.raises(osd.OpenSeadragonError, match="cannot write"):
        osd.locate()


def test_the_packaged_viewer_is_the_real_one() -> None:
    """Where this installation has it: the version that it says of itself, and its licence."""
    if not osd.is_whole(osd.PACKAGED):
        pytest.skip("this installation was built without OpenSeadragon")
    assert f"//! openseadragon {osd.VERSION}" in (osd.PACKAGED / osd.SCRIPT).read_text(encoding="utf-8")[:100]
    assert "OpenSeadragon contributors" in (osd.PACKAGED / osd.LICENCE).read_text(encoding="utf-8")
