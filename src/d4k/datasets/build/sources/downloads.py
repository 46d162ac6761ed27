"""Pictures behind URLs: each is fetched once, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from attrs import evolve, frozen
from tqdm.auto import tqdm

from d4k.datasets.build.values import Listed
from d4k.errors import DataError, OutputError
from d4k.files import atomic_file, sweep
from d4k.images.read import ENDINGS

__all__ = ["Fetch", "download_all"]

THREADS = 8
CHUNK = 1 << 20
SECONDS = 60.0
"""How long a server may say nothing."""


@frozen
class Fetch:
    """Downloads one URL.

    Args:
        folder: for the files.
        max_bytes: what is larger is refused.
        seconds: how long a server may say nothing.
    """

    folder: Path
    max_bytes: int
    seconds: float = SECONDS

    def path(self, url: str) -> Path:
        """The file of a URL: a digest of it, with its own ending where that is one of pictures."""
        ending = PurePosixPath(urlsplit(url).path).suffix.lower()
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.folder / f"{digest}{ending if ending in ENDINGS else ''}"

    def __call__(self, url: str) -> Path:
        """The file of a URL, downloaded now or earlier.

        Raises:
            DataError: it cannot be had, or is too large; nothing is left of it.
            OutputError: it cannot be written.
        """
        path = self.path(url)
        if path.is_file():
            return path
        if urlsplit(url).scheme not in ("http", "https"):
            raise DataError(f"{url} cannot be downloaded: it begins with neither http:// nor https://")
        try:
            # a server may close a connection in the middle: what it announced is compared with what came
            with closing(self._open(url)) as answer, atomic_file(path) as temporary, temporary.open("wb") as file:
                self._copy(answer, file)
        except (DataError, OutputError) as error:
            raise type(error)(f"{url} cannot be downloaded: {error}") from error
        except urllib.error.HTTPError as error:
            error.close()
            raise DataError(f"{url} cannot be downloaded: the server answers {error.code} {error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError; ValueError: no URL
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise DataError(f"{url} cannot be downloaded: {reason}") from error
        return path

    def _open(self, url: str) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, headers={"User-Agent": "d4k", "Accept": "image/*"})
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self.seconds)
        return answer

    def _copy(self, answer: http.client.HTTPResponse, file: BinaryIO) -> None:
        announced = answer.length  # of what is left to read; None where the server does not say
        self._check(announced or 0)
        count = 0
        while chunk := _read(answer):
            count += len(chunk)
            self._check(count)
            file.write(chunk)
        if announced is not None and count != announced:
            raise DataError(f"the server sent {count} of {announced} bytes")

    def _check(self, count: int) -> None:
        if count > self.max_bytes:
            raise DataError(f"it has more than the {self.max_bytes / 1e6:g} MB of max_download_mb")


def _read(answer: http.client.HTTPResponse) -> bytes:
    """The next part. What a connection raises is told apart here from what writing raises."""
    try:
        return answer.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"the connection broke ({error or type(error).__name__})") from error


def download_all(pictures: Sequence[Listed], fetch: Fetch, *, quiet: bool = False) -> tuple[Listed, ...]:
    """Download what is not there yet; a picture that cannot be had gets a `problem` and is tried again next time.

    Args:
        pictures: those without a path and with a URL are downloaded.
        fetch: how.
        quiet: show no progress.

    Raises:
        OutputError: the disk is full.
    """
    wanted = sorted({picture.url for picture in pictures if picture.path is None and picture.url})
    if not wanted:
        return tuple(pictures)
    sweep(fetch.folder)
    found: dict[str, Path | str] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        shown: Iterator[Path | str] = pool.map(_or_reason(fetch), wanted)
        bar = tqdm(shown, "downloading", len(wanted), delay=0.5, unit="picture", disable=quiet)
        try:
            found.update(zip(wanted, bar, strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return tuple(_placed(picture, found) for picture in pictures)


def _or_reason(fetch: Fetch) -> Callable[[str], Path | str]:
    def attempt(url: str) -> Path | str:
        try:
            return fetch(url)
        except DataError as error:
            return str(error)

    return attempt


def _placed(picture: Listed, found: dict[str, Path | str]) -> Listed:
    if picture.path is not None or not picture.url:
        return picture
    result = found[picture.url]
    return evolve(picture, path=result) if isinstance(result, Path) else evolve(picture, problem=result)
