"""Which picture of one system belongs with which of another: by prompt, or else by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from d4k.evaluation.result import Evaluation, Picture

__all__ = ["pair_pictures", "paired_by_prompt"]


def pair_pictures(evaluations: Sequence[Evaluation]) -> list[tuple[Picture | None, ...]]:
    """Put the pictures of several systems side by side.

    Pictures of one prompt and seed belong together where every picture of every system has both, and systems have some
    in common. Without seeds, pictures of one prompt do: the first with the first, the second with the second. Where
    prompts are missing the id decides, which is the name of the file without its ending.

    Args:
        evaluations: of the systems.

    Returns:
        One tuple a row, a picture or None for each system; in the order of the first system, and then what only
        later ones have.

    >>> a = Evaluation("a", (), (Picture("1", "1.png", "", 8, 8, "a cat"), Picture("2", "2.png", "", 8, 8, "a dog")))
    >>> b = Evaluation("b", (), (Picture("1", "1.png", "", 8, 8, "a dog"),))
    >>> [tuple(picture and picture.id for picture in row) for row in pair_pictures([a, b])]
    [('1', None), ('2', '1')]
    """
    by_prompt = paired_by_prompt(evaluations)
    tables = _by_seed(evaluations) if by_prompt else None
    if tables is None:
        tables = [_numbered(evaluation.pictures, by_prompt) for evaluation in evaluations]
    keys = dict.fromkeys(key for table in tables for key in table)
    return [tuple(table.get(key) for table in tables) for key in keys]


def paired_by_prompt(evaluations: Sequence[Evaluation]) -> bool:
    """Whether prompts pair the pictures of these systems: every picture has one."""
    return all(picture.prompt is not None for evaluation in evaluations for picture in evaluation.pictures)


def _by_seed(evaluations: Sequence[Evaluation]) -> list[dict[Hashable, Picture]] | None:
    """Pictures by prompt and seed; None where a seed is missing or there twice, or where systems share none."""
    tables: list[dict[Hashable, Picture]] = []
    for evaluation in evaluations:
        table: dict[Hashable, Picture] = {
            (picture.prompt, picture.seed): picture for picture in evaluation.pictures if picture.seed is not None
        }
        if len(table) < len(evaluation.pictures):
            return None
        tables.append(table)
    return tables if all(tables[0].keys() & table.keys() for table in tables) else None


def _numbered(pictures: Sequence[Picture], by_prompt: bool) -> dict[Hashable, Picture]:
    """Pictures by their prompt or id, and the how manieth of it they are."""
    seen: Counter[str | None] = Counter()
    table: dict[Hashable, Picture] = {}
    for picture in pictures:
        key = picture.prompt if by_prompt else picture.id
        table[key, seen[key]] = picture
        seen[key] += 1
    return table
