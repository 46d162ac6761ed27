"""What d4k writes appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from d4k.errors import OutputError
from d4k.files import atomic_file, atomic_folder, empty_folder, refuse_used, sweep, write_json, write_text


def _full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    """While it is being written there is nothing under its name."""
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert (temporary.parent.parent, temporary.name) == (path.parent, "a.txt")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_failed_block_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """An exception within the block passes through unchanged."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError, match="boom"), atomic_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError("boom")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_one_clear_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whichever system call fails, the old file stays, the message names the file and the reason."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os if call == "fsync" else Path, call, _full)
    with pytest.raises(
        OutputError, match=r"cannot write .*a\.txt: No space left on device; nothing was left half-written"
    ):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_the_old_folder_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A folder is replaced as a whole or not at all."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    monkeypatch.setattr(os if call == "fsync" else Path, call, _full)
    with pytest.raises(OutputError, match="No space left"), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["model", "model/old"]


def test_folder_that_cannot_move_into_place_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second of the two renames fails, the old folder returns to its name."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    rename, calls = Path.replace, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            _full()
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(OutputError, match="No space left"), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["model", "model/old"]


def test_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    """Nothing of the old folder remains; files below folders are written, too."""
    path = tmp_path / "runs" / "model"
    for name in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / name).write_text(name)
    assert [p.name for p in path.rglob("*")] == ["deep", "second"]
    assert list(path.parent.iterdir()) == [path]


def test_failed_folder_block_leaves_nothing(tmp_path: Path) -> None:
    """An exception within the block passes through unchanged."""
    with pytest.raises(KeyError), atomic_folder(tmp_path / "model") as temporary:  # noqa: PT012
        (temporary / "half").write_text("half")
        raise KeyError("boom")
    assert list(tmp_path.iterdir()) == []


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    """Temporary files are private; what they become follows the umask, as any file does."""
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "a")
        with atomic_folder(tmp_path / "model"):
            pass
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
        assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o750
        assert os.umask(0o027) == 0o027, "looking at the umask leaves it as it was"
    finally:
        os.umask(before)


def test_an_output_error_within_the_block_keeps_its_message(tmp_path: Path) -> None:
    """The innermost message is the one that helps."""
    with pytest.raises(OutputError, match="^inner$"), atomic_file(tmp_path / "a"):
        raise OutputError("inner")


def test_empty_folder_makes_or_accepts(tmp_path: Path) -> None:
    """A missing folder is made with its parents; an empty one is taken."""
    path = tmp_path / "a" / "b"
    assert empty_folder(path) == path
    assert empty_folder(path) == path
    assert path.is_dir()


def test_empty_folder_refuses_what_is_in_use(tmp_path: Path) -> None:
    """A folder with something in it, and a file, are never written into."""
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(OutputError, match="exists and is not empty; name another"):
        empty_folder(tmp_path)
    with pytest.raises(OutputError, match=r"output folder .*a\.txt is a file; name another"):
        empty_folder(tmp_path / "a.txt")


def test_json_is_readable_text(tmp_path: Path) -> None:
    """Indented, in UTF-8, with a newline at the end."""
    write_json(tmp_path / "a.json", {"name": "käse", "list": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "käse", "list": [1]}
    assert '  "name": "käse"' in text
    assert text.endswith("}\n")


WRITER = """
import os, signal, sys
from pathlib import Path
from d4k import files
target, moment = Path(sys.argv[1]), sys.argv[2]
kill = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
if moment == "between the renames":
    replace = Path.replace
    Path.replace = lambda self, to: kill() if to == target else replace(self, to)
with files.atomic_folder(target) as temporary:
    (temporary / "half").write_text("half")
    if moment == "while writing":
        kill()
    if moment == "live":
        print("writing", flush=True)
        sys.stdin.read()
"""
NO_LOCKS = pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on Windows")


@NO_LOCKS
@pytest.mark.parametrize("moment", ["while writing", "between the renames"])
def test_what_a_killed_process_left_is_swept_away(tmp_path: Path, moment: str) -> None:
    """A real SIGKILL; a folder that was just being replaced has its former content again."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    killed = subprocess.run([sys.executable, "-c", WRITER, str(path), moment], check=False)
    assert killed.returncode == -9
    leftover = [entry for entry in tmp_path.iterdir() if entry != path]
    assert len(leftover) == 1
    assert path.exists() is (moment == "while writing")
    assert sweep(tmp_path) == leftover
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["model", "model/old"]


@NO_LOCKS
def test_what_a_live_process_writes_is_not_swept_away(tmp_path: Path) -> None:
    """Neither another process's nor one's own; the folder counts as used."""
    path = tmp_path / "model"
    command = [sys.executable, "-c", WRITER, str(path), "live"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        assert sweep(tmp_path) == []
        with pytest.raises(OutputError, match="exists and is not empty"):
            refuse_used(tmp_path)
        writer.communicate()
    assert (path / "half").read_text() == "half"
    with atomic_file(tmp_path / "a.txt") as temporary:
        assert sweep(tmp_path) == []
        assert temporary.exists()


@NO_LOCKS
def test_a_folder_that_holds_only_leftovers_is_empty(tmp_path: Path) -> None:
    """A run that was killed before it wrote anything can be started again."""
    (tmp_path / ".d4k-abcdefgh.part" / "config.toml").mkdir(parents=True)
    assert empty_folder(tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_hidden_files_of_others_are_not_swept_away(tmp_path: Path) -> None:
    """Only folders that d4k made have its name and ending."""
    (tmp_path / ".d4k-settings").mkdir()
    (tmp_path / ".git").mkdir()
    assert sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 2


def test_names_that_no_file_can_have_are_output_errors(tmp_path: Path) -> None:
    """Too long, or with a NUL character; below a file."""
    (tmp_path / "file").touch()
    for name, reason in [("a" * 300, "File name too long"), ("a\0b", "NUL"), ("file/sub", "Not a directory|exists")]:
        with pytest.raises(OutputError, match=reason):
            empty_folder(tmp_path / name)
        with pytest.raises(OutputError, match=reason):
            write_text(tmp_path / name / "x", "x")
