"""`d4k data caption`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.config import with_settings
from d4k.errors import ConfigError
from d4k.plugins import create

if TYPE_CHECKING:
    from d4k.datasets.captions import Captioned

__all__ = ["caption"]

NAMED = 20
"""Pictures that could not be captioned, of which so many are named on the screen; all are tried again."""

OF_CAPTIONING = ("options", "instruction", "concurrency", "budget", "limit", "again", "device")
"""Parameters that count with --captioner alone."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--captioner", help="Ask this captioner, such as openai or transformers; d4k plugins lists them.")
@click.option(
    "--set",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set an option of the captioner, such as model=gpt-4o. May be repeated.",
)
@click.option(
    "--instruction",
    metavar="TEXT",
    help="What to say of a picture. The default asks for a direct and brief description of the scene.",
)
@click.option(
    "--concurrency", type=click.IntRange(1, 1024), help="Ask about so many pictures at once; the default is 8."
)
@click.option(
    "--budget",
    metavar="DOLLARS",
    type=float,
    help="Stop before all answers in captions.jsonl, those of earlier runs among them, cost more.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Ask about so many pictures at most.")
@click.option(
    "--again",
    is_flag=True,
    help="Caption anew what has a text of another captioner, instruction or origin; corrections stay.",
)
@click.option("--device", help="cuda, mps or cpu, for a model on this machine; chosen by itself when left out.")
@click.option(
    "--corrections",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read the corrections that the page of --review saved.",
)
@click.option(
    "--review",
    metavar="PAGE.html",
    type=click.Path(path_type=Path),
    help="Write a page of pictures and captions, on which a person corrects them.",
)
@click.option("--review-count", type=click.IntRange(min=1), default=500, show_default=True,
              help="Pictures on that page at most; those without a caption come first.")  # fmt: skip
def caption(folder: Path, captioner: str | None, corrections: Path | None, review: Path | None, **given: Any) -> None:
    """Caption the pictures in DIR: a folder with metadata.jsonl, several of them below, or pictures alone.

    Every answer is kept in DIR/captions.jsonl, and the captions become the texts of metadata.jsonl. Nothing is asked
    twice: run the command again to go on after an interruption. A refusal or an empty answer is recorded, and is no
    text. Corrections are read first, then pictures are captioned, and then the page is written.

    The key of an endpoint is read from an environment variable, OPENAI_API_KEY for OpenAI.

    \b
    Example:
      d4k data caption dataset --captioner openai --set model=gpt-4o --set price_in=2.5 --set price_out=10 --budget 5
      d4k data caption dataset --captioner transformers --set model=HuggingFaceTB/SmolVLM-256M-Instruct
      d4k data caption dataset --review review.html
      d4k data caption dataset --corrections corrections.json
    """
    _check(captioner, corrections, review, given)
    if corrections is not None:
        _correct(folder, corrections)
    if captioner is not None:
        _caption(folder, captioner, given)
    if review is not None:
        _review(folder, review, given["review_count"])


def _check(captioner: str | None, corrections: Path | None, review: Path | None, given: Mapping[str, Any]) -> None:
    """Refuse a command that does nothing, or an option that would count for nothing."""
    if captioner is None and corrections is None and review is None:
        raise ConfigError("nothing is to be done; give --captioner NAME, --review PAGE.html or --corrections FILE")
    useless = [name for name in OF_CAPTIONING if captioner is None and given[name] not in (None, (), False)]
    if useless:
        name = "set" if useless[0] == "options" else useless[0]
        raise ConfigError(f"--{name} is for captioning; give --captioner NAME, too, or leave it out")


def _caption(folder: Path, name: str, given: Mapping[str, Any]) -> None:
    from d4k.datasets.captions import Captioning, caption_folder

    names = ("instruction", "concurrency", "budget", "limit", "again", "device")
    settings = Captioning(name=name, **{key: given[key] for key in names if given[key] is not None})
    captioner = create("captioner", name, **with_settings({}, list(given["options"])))
    done = caption_folder(folder, captioner, settings)
    _say_failures(done.failures)
    for row, words in _rows(done).items():
        click.echo(f"{row:24}{words}")
    if done.stopped:
        click.echo(f"stopped: {done.stopped}", err=True)


def _rows(done: Captioned) -> dict[str, str]:
    """What came of it, as it is shown."""
    rows = {"pictures": f"{done.pictures}", "captioned now": f"{done.captioned}"}
    if done.refused or done.empty:
        rows["without a caption"] = f"{done.refused} refused, {done.empty} empty or cut off"
    own = f", {done.own} with a text of other origin" if done.own else ""
    rows["had an answer already"] = f"{done.had}{own}"
    if done.failures:
        rows["could not be captioned"] = f"{len(done.failures)}; the next run tries them again"
    if done.tokens_in or done.tokens_out:
        rows["tokens"] = f"{done.tokens_in:,} read, {done.tokens_out:,} written"
    if done.cost is not None:
        rows["cost"] = f"${done.cost:.4f} now, ${done.total:.4f} in all"
    rows["texts changed"] = f"{done.changed}"
    return rows


def _say_failures(failures: Mapping[str, str]) -> None:
    for name, reason in list(failures.items())[:NAMED]:
        click.echo(f"{name}: {' '.join(reason.split())}", err=True)
    if len(failures) > NAMED:
        click.echo(f"... and {len(failures) - NAMED} more", err=True)


def _correct(folder: Path, file: Path) -> None:
    from d4k.datasets.captions import read_corrections

    done = read_corrections(folder, file)
    click.echo(
        f"{done.corrected} captions corrected, {done.bad} marked as bad, {done.known} known before; "
        f"{done.changed} texts changed"
    )
    if done.unknown:
        click.echo(f"{done.unknown} corrections are of pictures that {folder} does not have", err=True)


def _review(folder: Path, page: Path, count: int) -> None:
    from d4k.datasets.captions import write_review

    done = write_review(folder, page, count)
    _say_failures(done.unreadable)
    click.echo(f"{page} shows {done.shown} of {done.pictures} pictures; open it in a browser")
