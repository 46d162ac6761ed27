"""Kills real runs of `d4k train` at random moments, goes on with each, and compares the ends. `test_kills.py` reads it.

python tests/soak/killing.py FOLDER KILLS [SEED]

Everything is imported once, and each run is forked from here: a run and its kill take a second. A moment is one of

- event: the n-th time that the run opens, renames, makes or removes a file in its folders, by Python's audit events;
- cache: as event, of the cache alone, which a new run fills;
- line: in the middle of the n-th line of `losses.jsonl`;
- pass: in the n-th forward pass;
- time: SIGKILL from outside, after a part of the time that a whole run takes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from d4k.cli import main
from d4k.models import RunFolder
from d4k.plugins import discovery, registry
from d4k.training import MSELoss, journal, read_losses

KINDS = ("event", "line", "pass", "time", "cache")
FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "sqlite3.connect")
"""What Python reports of files."""

MOST_KILLS = 4
"""Of one run, before it is left to end."""

RECIPE = """
model = "fake-model"
output_dir = "{folder}/run"
dataset.name = "folder"
dataset.options.path = "{photos}"
loss.name = "mse"
data = {{crop = "random", flip = true, crops = 2, workers = 2}}
schedule = {{name = "cosine", warmup_steps = 2}}
training = {{steps = 12, batch_size = 2, accumulation = 2, save_every = 2, keep_last = 2, caption_dropout = 0.3}}
"""


def install_fake() -> None:
    """Make the small model of the tests, and nothing else, what `d4k` finds."""
    spec = spec_from_file_location("conftest", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    conftest = module_from_spec(spec)
    sys.modules["conftest"] = conftest
    spec.loader.exec_module(conftest)
    points = [conftest.Point("fake", conftest.FakePlugin)]
    discovery.entry_points = lambda group: points  # type: ignore[assignment]
    registry.cache_clear()


def make_photos(folder: Path) -> Path:
    """Seven captioned pictures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(7):
        pixels = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pixels.resize((24, 20), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}")
    return folder


def kill() -> None:
    """End this process as a scheduler or the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def countdown(first: int) -> Callable[[], bool]:
    """True in the `first`-th call, counted from 1."""
    left = [first]

    def now() -> bool:
        left[0] -= 1
        return left[0] == 0

    return now


def arm(kind: str, moment: int, folder: Path) -> None:
    """Have this process kill itself at a moment."""
    now, own = countdown(moment), os.getpid()
    if kind in ("event", "cache"):
        place = str(folder / ("d4k-cache" if kind == "cache" else ""))

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in FILES and place in str(arguments[0]) and os.getpid() == own and now():
                kill()

        sys.addaudithook(hook)
    elif kind == "line":
        write = journal._write_all

        def half(file: Any, line: bytes) -> None:
            if now():
                file.write(line[: len(line) // 2])
                kill()
            write(file, line)

        journal._write_all = half
    elif kind == "pass":
        loss = MSELoss.__call__

        def interrupted(self: MSELoss, velocity: Any, step: Any) -> Any:
            if now():
                kill()
            return loss(self, velocity, step)

        MSELoss.__call__ = interrupted  # type: ignore[method-assign]


def start(recipe: Path, log: Path, *more: str, armed: tuple[str, int] | None = None) -> int:
    """`d4k train` in a process of its own; returns its number."""
    if child := os.fork():
        return child
    torch.set_num_threads(1)
    if armed is not None:
        arm(*armed, recipe.parent)
    result = CliRunner().invoke(main, ["train", str(recipe), *more])
    log.write_text(f"{result.output}\n{result.exception!r}\n")
    os._exit(0 if result.exit_code == 0 else 1)


def finished(child: int) -> bool | None:
    """Wait for a process: True where it ended well, None where it was killed, False otherwise."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None if os.WTERMSIG(status) == signal.SIGKILL else False
    return os.WEXITSTATUS(status) == 0


def left(folder: Path) -> dict[str, Any]:
    """What a finished run is compared by: losses, weights, state of the optimizer, model, names of all files."""
    run = RunFolder(folder / "run")
    states = {}
    for state in run.states():
        rest = torch.load(state / "optimizer.pt", weights_only=True)
        states[state.name] = {"weights": load_file(state / "trainable.safetensors"), **rest}
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in read_losses(run.path)]
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if "tensorboard" not in file.parts}
    names = {name for name in files if "d4k-cache" not in name or ".part" in name or ".lock" in name}
    return {"rows": rows, "states": states, "model": load_file(run.model / "denoiser.safetensors"), "names": names}


def equal(one: Any, other: Any) -> bool:
    """Whether two nested values are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def killed_once(recipe: Path, log: Path, rng: random.Random, seconds: float, kind: str) -> bool:
    """Start a run, or go on with it, and kill it; False where it ended before its moment came."""
    more = ["--resume"] if RunFolder(recipe.parent / "run").states() else []
    if kind == "time":
        child = start(recipe, log, *more)
        time.sleep(rng.random() * seconds)
        os.kill(child, signal.SIGKILL)
    else:
        most = {"event": 150, "cache": 25, "line": 8, "pass": 16}[kind]
        child = start(recipe, log, *more, armed=(kind, rng.randint(1, most)))
    how = finished(child)
    assert how is not False, log.read_text()
    return how is None


def prepared(folder: Path, photos: Path) -> Path:
    """The recipe of a run in a folder of its own."""
    folder.mkdir()
    recipe = folder / "run.toml"
    recipe.write_text(RECIPE.format(folder=folder, photos=photos))
    return recipe


def soak(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill runs until there were so many kills; says what each run went through, and what is wrong with its end."""
    install_fake()
    photos, rng = make_photos(folder / "photos"), random.Random(seed)
    began = time.monotonic()
    recipe, log = prepared(folder / "undisturbed", photos), folder / "log.txt"
    assert finished(start(recipe, log)), log.read_text()
    seconds, expected = time.monotonic() - began, left(recipe.parent)
    runs: list[dict[str, Any]] = []
    counts = dict.fromkeys(KINDS, 0)
    while sum(counts.values()) < kills:
        recipe, went = prepared(folder / f"run {len(runs)}", photos), []
        for _ in range(rng.randint(1, MOST_KILLS)):
            possible = KINDS if not went else KINDS[:-1]
            kind = min(possible, key=lambda kind: (counts[kind], rng.random()))
            if not killed_once(recipe, log, rng, seconds, kind):
                break
            counts[kind] += 1
            went.append(f"{kind} at {read_step(recipe)}")
        more = ["--resume"] if RunFolder(recipe.parent / "run").states() else []
        ended = finished(start(recipe, log, *more))
        found = left(recipe.parent) if ended else {}
        wrong = [name for name in expected if name != "names" and not equal(expected[name], found.get(name))]
        wrong += sorted(found.get("names", set()) ^ expected["names"])
        runs.append({"kills": went, "wrong": wrong, "said": "" if ended else log.read_text()})
    return {"kills": counts, "seconds": round(time.monotonic() - began), "runs": runs}


def read_step(recipe: Path) -> str:
    """The newest checkpoint of a run."""
    states = RunFolder(recipe.parent / "run").states()
    return states[-1].name if states else "no checkpoint"


if __name__ == "__main__":
    place, many, *more = sys.argv[1:]
    print(json.dumps(soak(Path(place), int(many), int(more[0]) if more else 0), indent=1))
