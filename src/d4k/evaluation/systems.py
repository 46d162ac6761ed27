"""Systems that have been measured, read from their folders to be compared."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from torch import Tensor

from d4k.errors import DataError
from d4k.evaluation.result import SCORES, Evaluation, read_evaluation
from d4k.evaluation.rows import read_references, read_rows
from d4k.files import is_file, is_folder, read_json

__all__ = ["MANIFEST", "System", "find_evaluations", "read_systems"]

MANIFEST = "manifest.json"
"""Of a benchmark, whose systems lie in its folder `models`."""


@frozen(eq=False)
class System:
    """One system: what was measured, and where its rows lie.

    Args:
        folder: of its `scores.json`.
        evaluation: as it was read, under a name that no other of the systems has.
    """

    folder: Path
    evaluation: Evaluation

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.evaluation.name

    def rows(self, metric: str) -> list[Tensor]:
        """The rows of each picture, (K, D), in the order of the pictures."""
        return read_rows(self.folder, self.evaluation, metric)

    def references(self, metric: str) -> list[Tensor]:
        """The rows of each reference picture, for a metric of sets."""
        return read_references(self.folder, self.evaluation, metric)


def find_evaluations(paths: Sequence[Path]) -> list[Path]:
    """The folders of evaluations that some paths name.

    Args:
        paths: folders with a `scores.json`, such files themselves, or folders of benchmarks, which stand for all of
            their models in the order of the manifest.

    Raises:
        DataError: there is no evaluation in one of them.

    """
    found: list[Path] = []
    for path in paths:
        if is_file(path, DataError) and path.name == SCORES:
            found.append(path.parent)
        elif is_file(path / SCORES, DataError):
            found.append(path)
        elif is_file(path / MANIFEST, DataError):
            found += _of_benchmark(path)
        elif is_folder(path, DataError):
            raise DataError(
                f"{path} holds neither {SCORES} nor the {MANIFEST} of a benchmark; measure it first: "
                f"d4k evaluate {path} --output {path}",
                path,
            )
        else:
            raise DataError(f"there is no folder {path}; name one that d4k evaluate or d4k benchmark wrote", path)
    return found


def read_systems(paths: Sequence[Path]) -> list[System]:
    """Read evaluations; where two have one name, they are called as their folders are.

    Args:
        paths: as for `find_evaluations`.

    Raises:
        DataError: one cannot be read, or the same folder is named twice.
    """
    folders = find_evaluations(paths)
    for folder, count in Counter(folder.resolve() for folder in folders).items():
        if count > 1:
            raise DataError(f"{folder} is named {count} times; name each system once", folder)
    evaluations = [read_evaluation(folder) for folder in folders]
    names = Counter(evaluation.name for evaluation in evaluations)
    return [
        System(folder, evolve(evaluation, name=str(folder)) if names[evaluation.name] > 1 else evaluation)
        for folder, evaluation in zip(folders, evaluations, strict=True)
    ]


def _of_benchmark(folder: Path) -> list[Path]:
    listed = [_name(model) for model in _listed(read_json(folder / MANIFEST, DataError))]
    found = [path.parent for path in sorted((folder / "models").glob(f"*/{SCORES}"))]
    if not found:
        raise DataError(f"the benchmark {folder} has no scores yet; run it again to finish it", folder)

    missing = [name for name in listed if isinstance(name, str) and folder / "models" / name not in found]
    if missing:
        warnings.warn(
            f"the benchmark {folder} has no scores of {', '.join(missing)} yet; run it again to finish it", stacklevel=2
        )

    def place(path: Path) -> tuple[int, str]:
        own = [number for number, name in enumerate(listed) if path.name in (name, f"{name}-upscaled")]
        return (own[0] if own else len(listed), path.name)

    return sorted(found, key=place)


def _listed(manifest: Any) -> Sequence[Any]:
    models = manifest.get("models") if isinstance(manifest, dict) else None
    return models if isinstance(models, list) else []


def _name(model: Any) -> Any:
    return model.get("name") if isinstance(model, dict) else model
