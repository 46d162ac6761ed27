"""The viewer of the report: where OpenSeadragon comes from, checked by its hashes.

It is not committed. When the package is built, `hatch_build.py` loads this file by its path, so that it imports nothing
but the standard library. OpenSeadragon is looked for

1. in the package: `assets/openseadragon/`;
2. in the file that the environment variable `D4K_OPENSEADRAGON` names, the tarball of the npm package;
3. in the user's cache, `~/.cache/d4k/` or below `XDG_CACHE_HOME`;
4. by `npm pack`, where npm is on the PATH and `HF_HUB_OFFLINE` is not set.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "FILES",
    "INTEGRITY",
    "LICENCE",
    "PACKAGED",
    "SCRIPT",
    "VARIABLE",
    "VERSION",
    "OpenSeadragonError",
    "extract",
    "is_whole",
    "locate",
    "provide",
]

VERSION = "6.1.1"

INTEGRITY = "sha512-g4iKe2q8B642SaBT3+x4ZF3/8b1TxPPydyjmtrOLgDrlYWMKd9ZXM+1Cb/xa9DVySkvs/7l6HR1nHKfD5F3Tsw=="
"""Of the tarball, as `npm view openseadragon@6.1.1 dist.integrity` says it."""

SCRIPT, LICENCE = "openseadragon.min.js", "LICENSE.txt"

FILES: Mapping[str, tuple[str, str]] = {
    SCRIPT: (
        "package/build/openseadragon/openseadragon.min.js",
        "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad",
    ),
    LICENCE: ("package/LICENSE.txt", "17da96b26ac706d2cbd06d4555dedb43026782f4943faf0156fe7acf89454228"),
}
"""What is taken out of the tarball: name -> its path in there, and its SHA-256."""

VARIABLE = "D4K_OPENSEADRAGON"
PACKAGED = Path(__file__).parent / "assets" / "openseadragon"
MINUTES = 2  # that npm may take


class OpenSeadragonError(Exception):
    """OpenSeadragon cannot be had; the message says where from it can be taken."""


def locate() -> Path:
    """A folder that holds `FILES`: that of the package, or else one in the user's cache, which is made.

    Raises:
        OpenSeadragonError: OpenSeadragon is nowhere, or what there is has another hash.
    """
    if is_whole(PACKAGED):
        return PACKAGED
    folder = _cache()
    provide(folder)
    return folder


def provide(folder: Path) -> None:
    """Make `folder` hold `FILES`, and nothing else, whole or not at all; nothing is done where it does.

    Raises:
        OpenSeadragonError: OpenSeadragon is nowhere, or what there is has another hash.
    """
    if is_whole(folder):
        return
    if named := os.environ.get(VARIABLE):
        extract(Path(named), folder)
    elif is_whole(_cache()):
        _write({name: (_cache() / name).read_bytes() for name in FILES}, folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            extract(_pack(Path(temporary)), folder)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds `FILES`, each with its hash."""
    try:
        return all(_sha256((folder / name).read_bytes()) == sha256 for name, (_, sha256) in FILES.items())
    except OSError:
        return False


def extract(tarball: Path, folder: Path) -> None:
    """Take `FILES` out of the tarball of the npm package, into `folder`, whole or not at all.

    Args:
        tarball: `openseadragon-6.1.1.tgz`.
        folder: is made, or replaced.

    Raises:
        OpenSeadragonError: the tarball cannot be read or is another, or the folder cannot be written.
    """
    try:
        data = tarball.read_bytes()
    except (OSError, ValueError) as error:
        raise OpenSeadragonError(f"cannot read {tarball}: {getattr(error, 'strerror', None) or error}") from error
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != INTEGRITY:
        raise OpenSeadragonError(
            f"{tarball} is not the tarball of OpenSeadragon {VERSION}: its hash is {found}, and must be {INTEGRITY}. "
            f"Take it by: npm pack openseadragon@{VERSION}"
        )
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            members = {name: archive.extractfile(path) for name, (path, _) in FILES.items()}
            contents = {name: member.read() for name, member in members.items() if member is not None}
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise OpenSeadragonError(f"cannot take OpenSeadragon out of {tarball}: {error}") from error
    wrong = [name for name, (_, sha256) in FILES.items() if _sha256(contents.get(name, b"")) != sha256]
    if wrong:
        raise OpenSeadragonError(f"{', '.join(wrong)} in {tarball} has another hash than in OpenSeadragon {VERSION}")
    _write(contents, folder)


def _pack(folder: Path) -> Path:
    """The tarball that npm fetches into `folder` from the registry that it is set up with."""
    reason = ""
    npm = shutil.which("npm")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        reason = "HF_HUB_OFFLINE is set"
    elif npm is None:
        reason = "npm is not on the PATH"
    else:
        command = [npm, "pack", f"openseadragon@{VERSION}", "--pack-destination", str(folder), "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=60 * MINUTES)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            reason = f"npm gave {said[0]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"npm failed: {error}"
    tarballs = sorted(folder.glob("*.tgz"))
    if reason or not tarballs:
        raise OpenSeadragonError(
            f"the report needs OpenSeadragon {VERSION}, which this installation of d4k does not hold "
            f"({reason or 'npm wrote no tarball'}). Where there is a network, run npm pack openseadragon@{VERSION}, "
            f"and set {VARIABLE}=/path/to/openseadragon-{VERSION}.tgz"
        )
    return tarballs[0]


def _write(contents: Mapping[str, bytes], folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".d4k-", suffix=".part", dir=folder.parent) as temporary:
            new = Path(temporary) / folder.name
            new.mkdir()
            for name, data in contents.items():
                (new / name).write_bytes(data)
            if folder.exists():
                folder.replace(Path(temporary) / "old")
            new.replace(folder)
    except OSError as error:
        if not is_whole(folder):  # another process may have written it at the same moment
            raise OpenSeadragonError(f"cannot write {folder}: {error.strerror or error}") from error


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "d4k" / f"openseadragon-{VERSION}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
