"""Files of a model on the Hub or in its cache, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from d4k.errors import CheckpointError
from d4k.files import is_file, is_folder

__all__ = ["OFFLINE", "fetch_denoiser", "fetch_file", "fetch_model", "in_cache"]

OFFLINE = "Offline? Download it where there is a network (hf download), and give the folder's path instead."
DENOISER_FILES = ["transformer/*", "config.json", "diffusion_pytorch_model*"]
RETRY = "Try again: what was downloaded already is kept."


def fetch_file(repo: str, name: str, revision: str | None = None) -> Path | None:
    """One file of a model on the Hub, downloaded or from the cache; None where the model has no such file.

    Raises:
        CheckpointError: there is no such model or revision, it may not be read, or the connection failed.
    """
    try:
        with _errors(repo, name, revision, optional=True):
            return Path(hf_hub_download(repo, name, revision=revision))
    except EntryNotFoundError:
        # offline, a file that is not in the cache is reported like one that does not exist
        return None


def in_cache(repo: str, name: str, revision: str | None = None) -> bool:
    """Whether a file of a model on the Hub was downloaded before; the Hub is not asked.

    Args:
        repo: Hub id.
        name: of the file.
        revision: branch, tag or commit.
    """
    try:
        return isinstance(try_to_load_from_cache(repo, name, revision=revision), str)
    except (OSError, ValueError):  # what is no Hub id is in no cache
        return False


def fetch_model(repo: str, revision: str | None = None, variant: str | None = None, *, without: str = "") -> Path:
    """A whole model in the diffusers layout: its folder in the cache, downloaded where something is missing.

    Args:
        repo: Hub id.
        revision: branch, tag or commit.
        variant: of the weight files.
        without: a part whose weights are not needed.

    Raises:
        CheckpointError: as of `fetch_file`.
    """
    from diffusers import DiffusionPipeline

    skipped = {without: None} if without else {}
    with _errors(repo, "the weights", revision):
        folder = Path(DiffusionPipeline.download(repo, revision=revision, variant=variant, **skipped))
        if without:
            hf_hub_download(repo, f"{without}/config.json", revision=revision)
    return folder


def fetch_denoiser(name: str) -> Path:
    """The file or folder that holds a denoiser.

    Args:
        name: a file; a folder of a denoiser, or of a whole model; or on the Hub `owner/name`, or a file of it as
            `owner/name/file.safetensors`.

    Raises:
        CheckpointError: there is no such thing.
    """
    path = Path(name).expanduser()
    if not (is_file(path, CheckpointError) or is_folder(path, CheckpointError)):
        owner, _, rest = name.partition("/")
        repo, _, file = rest.partition("/")
        if not repo or name.startswith((".", "/", "~")):
            raise CheckpointError(f"there is no file or folder {path}; a transformer may also be a Hub id")
        with _errors(f"{owner}/{repo}", file or "the transformer", None):
            if file:
                path = Path(hf_hub_download(f"{owner}/{repo}", file))
            else:
                path = Path(snapshot_download(name, allow_patterns=DENOISER_FILES))
    if is_file(path, CheckpointError) or is_file(path / "config.json", CheckpointError):
        return path
    if is_file(path / "transformer" / "config.json", CheckpointError):
        return path / "transformer"
    raise CheckpointError(f"{path} holds no transformer: there is no config.json in it, nor in {path / 'transformer'}")


@contextmanager
def _errors(repo: str, what: str, revision: str | None, *, optional: bool = False) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(
            f"'{repo}' asks for its licence to be accepted: do so at huggingface.co/{repo}, then run hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"the Hub has no model '{repo}' that you may read; check the name, and for a private one run hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"'{repo}' has no revision '{revision}'; it is a branch, a tag or a commit") from error
    except EntryNotFoundError as error:
        if optional:
            raise
        raise CheckpointError(
            f"cannot find {what} of '{repo}', neither on the Hub nor in the cache. {OFFLINE}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise CheckpointError(
            f"cannot find {what} of '{repo}' in the cache, and HF_HUB_OFFLINE is set. {OFFLINE}"
        ) from error
    except Exception as error:
        # the client raises what its HTTP library raises, and diffusers wraps some of it
        lines = str(error).strip().splitlines()
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        raise CheckpointError(f"cannot get {what} of '{repo}' from the Hub: {reason}. {RETRY} {OFFLINE}") from error
