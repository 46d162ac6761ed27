"""Pairs of pictures: by prompt where there are prompts, by id elsewhere, and what is missing stays visible."""

from __future__ import annotations

from d4k.evaluation.pairs import pair_pictures, paired_by_prompt
from d4k.evaluation.result import Evaluation, Picture


def system(name: str, *pictures: tuple[str, str | None]) -> Evaluation:
    """Pictures of (id, prompt)."""
    return Evaluation(name, (), tuple(Picture(key, f"{key}.png", "", 8, 8, prompt) for key, prompt in pictures))


def ids(*evaluations: Evaluation) -> list[tuple[str | None, ...]]:
    return [tuple(picture.id if picture else None for picture in row) for row in pair_pictures(evaluations)]


def test_prompts_pair_pictures_whatever_their_files_are_called() -> None:
    """In the order of the first system."""
    a = system("a", ("0", "cat"), ("1", "dog"))
    b = system("b", ("0", "dog"), ("1", "cat"))
    assert ids(a, b) == [("0", "1"), ("1", "0")]
    assert paired_by_prompt([a, b])


def test_the_second_picture_of_a_prompt_belongs_to_the_second() -> None:
    """One more than the other has is left without a partner."""
    a = system("a", ("0", "cat"), ("1", "cat"), ("2", "cat"))
    b = system("b", ("x", "cat"), ("y", "dog"), ("z", "cat"))
    assert ids(a, b) == [("0", "x"), ("1", "z"), ("2", None), (None, "y")]


def test_ids_pair_pictures_where_one_has_no_prompt() -> None:
    """One picture without is enough; prompts that would say otherwise do not count."""
    a = system("a", ("0", "cat"), ("1", "dog"))
    b = system("b", ("1", None), ("0", "dog"))
    assert ids(a, b) == [("0", "0"), ("1", "1")]
    assert not paired_by_prompt([a, b])


def test_three_systems_are_paired_at_once() -> None:
    """What only the third has comes last."""
    systems = system("a", ("0", "cat")), system("b", ("0", "dog")), system("c", ("0", "cat"), ("1", "owl"))
    assert ids(*systems) == [("0", None, "0"), (None, "0", None), (None, None, "1")]


def test_no_pictures_are_no_rows() -> None:
    assert ids(system("a"), system("b")) == []


def test_seeds_pair_pictures_of_one_prompt_where_systems_share_some() -> None:
    """A picture that is missing shifts no other; without a seed in common the order counts."""

    def seeded(name: str, *seeds: int) -> Evaluation:
        return Evaluation(name, (), tuple(Picture(str(n), f"{n}.png", "", 8, 8, "cat", n) for n in seeds))

    assert ids(seeded("a", 0, 1, 2), seeded("b", 1, 2)) == [("0", None), ("1", "1"), ("2", "2")]
    assert ids(seeded("a", 0, 1), seeded("b", 5, 6)) == [("0", "5"), ("1", "6")]
