"""What the cache is worth: steps a second, the time to open it, bytes of a picture.

- steps: the tiny SD3 at 512 pixels, the same step with latents and text from the cache, and with both encoded at every
  step (the pictures by the same code that fills the cache); in turns, the median of the ratios.
- index: seconds and memory that it takes to open an index of one million entries in a fresh process, beside one of a
  thousand, and to look a thousand entries up.
- bytes: what a latent of 16x128x128 with its log-variance, and text of SD3's shape, take in the cache and in one padded
  `.npz` a picture, as trainers without an index write them; and the seconds to read each, from the page cache.

Seconds are processor time of the process, all of its threads together, since it is a step's share of a CPU that counts.

    python benchmarks/cache.py [--rounds N] [--size PIXELS]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d4k import Pipeline
from d4k.images import Crop
from d4k.plugins import create
from d4k.store import Group, digest
from d4k.training.data.cache import fill, open_cache
from d4k.training.data.source import Encoding, Source, View

MODEL = "tiny-sd3"
PHOTOS = ["astronaut", "coffee", "rocket", "hubble_deep_field"]
MILLION = 1_000_000
PICTURES = 24


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of a call, which other programs on the machine hardly change."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measure_steps(rounds: int, size: int) -> None:
    """Print the ratio of steps a second."""
    backbone = Pipeline.from_pretrained(MODEL, device="cpu", positions="interpolate").backbone
    dataset = create("dataset", "sample-photos", names=PHOTOS)
    views = [View(index, Crop(size, size)) for index in range(len(PHOTOS))]
    captions = [dataset[index].caption for index in range(len(PHOTOS))]
    optimizer = torch.optim.AdamW(backbone.trainable.parameters(), lr=1e-4)
    noise = torch.randn(backbone.encode_image(torch.zeros(1, 3, size, size)).shape)

    def step(source: Source, number: int) -> None:
        view, sigma = views[number % len(views)], torch.full((1,), 0.5)
        clean = source.latent(source.load(view)).mean.float()
        velocity = backbone.velocity(0.5 * clean + 0.5 * noise, sigma, source.text(captions[view.index]))
        torch.nn.functional.mse_loss(velocity, noise - clean).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    with tempfile.TemporaryDirectory() as folder:
        cached = fill(backbone, dataset, views, captions, Path(folder)).source
        encoding = Encoding(backbone, dataset)
        encoding.text = encoding._text  # type: ignore[assignment] # at every step, without the newest in memory
        cached.text = cached._text  # type: ignore[assignment]
        pairs = [[seconds(partial(step, source, n)) for source in (cached, encoding)] for n in range(rounds + 1)]
    fast, slow = (statistics.median(pair[place] for pair in pairs[1:]) for place in (0, 1))
    ratio = statistics.median(slow / fast for fast, slow in pairs[1:])
    print(f"steps a second at {size}: {1 / fast:.2f} with the cache, {1 / slow:.2f} encoding: {ratio:.2f} times")


def make_index(folder: Path, count: int) -> None:
    """An index of so many entries, in shards of a hundred that hold nothing."""
    store = open_cache(folder)
    group = Group("latent", "model", "bfloat16")
    with store.index._transaction() as rows:  # the million at once: `add` writes one shard at a time
        for number in range(count // 100):
            name = f"latent-{number:020d}"
            (store.shards / f"{name}.safetensors").write_bytes(b"")
            rows.execute(
                "INSERT INTO shards (id, name, bytes, kind, model, dtype) VALUES (?, ?, 0, ?, ?, ?)",
                (number, name, group.kind, group.model, group.dtype),
            )
            keys = [(bytes.fromhex(digest(number, place)), number) for place in range(100)]
            rows.executemany("INSERT INTO entries VALUES (?, ?)", keys)


OPEN = """
import json, resource, sys, time
from pathlib import Path
from d4k.store import digest
from d4k.training.data.cache import open_cache
keys = [digest(number, number % 100) for number in range(0, int(sys.argv[2]) // 100)][:1000]
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
store = open_cache(Path(sys.argv[1]))
opened = time.process_time() - begun
assert store.missing(keys) == []
print(json.dumps([opened, time.process_time() - begun - opened,
                  (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""


def measure_index() -> None:
    """Print what opening an index takes."""
    for count in (1000, MILLION):
        with tempfile.TemporaryDirectory() as folder:
            make_index(Path(folder), count)
            size = (Path(folder) / "index.sqlite").stat().st_size
            command = [sys.executable, "-c", OPEN, folder, str(count)]
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            opened, looked_up, grown = json.loads(shown.splitlines()[-1])
        found = min(1000, count // 100)
        print(
            f"index of {count:,} entries ({size / 1e6:.1f} MB): opened in {opened:.3f} s, {found} entries found in "
            f"{looked_up * 1000:.1f} ms, memory grew by {grown:.1f} MB"
        )


def example(number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A latent and text of SD3's shapes at 1024 pixels."""
    generator = torch.Generator().manual_seed(number)
    mean = torch.randn(1, 16, 128, 128, generator=generator)
    states = torch.randn(1, 333, 4096, generator=generator)
    states[:, :77, 2048:] = 0  # as diffusers pads the features of CLIP
    text = {"states": states, "pooled": torch.randn(1, 2048, generator=generator)}
    return {"mean": mean, "log_variance": mean / 4 - 6}, text


def measure_bytes() -> None:
    """Print bytes and read times of the cache and of `.npz` files."""
    latents, texts = zip(*map(example, range(PICTURES)), strict=True)
    for name, given in (("latent", latents), ("text", texts)):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for dtype in (np.float32, np.float16):
                files = [folder / f"{np.dtype(dtype).name}-{number}.npz" for number in range(PICTURES)]
                for file, tensors in zip(files, given, strict=True):
                    np.savez(file, **{key: tensor.numpy().astype(dtype) for key, tensor in tensors.items()})
                _print(name, f"npz {np.dtype(dtype).name}", files, lambda number: dict(np.load(files[number])))  # noqa: B023
            for kind in ("float32", "bfloat16"):
                store = open_cache(folder / kind)
                with store.writer(Group(name, "model", kind)) as writer:
                    for number, tensors in enumerate(given):
                        writer.add(digest(number), tensors)
                shards = list(store.shards.iterdir())
                _print(name, f"cache {kind}", shards, lambda number: store.read(digest(number), "it"))  # noqa: B023


def _print(name: str, how: str, files: list[Path], read: Callable[[int], Any]) -> None:
    size = sum(file.stat().st_size for file in files) / PICTURES
    for number in range(PICTURES):
        read(number)
    each = statistics.median(seconds(partial(read, number)) for number in range(PICTURES))
    print(f"{name} in {how}: {size / 1e6:.3f} MB, read in {each * 1000:.2f} ms")


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--size", type=int, default=512)
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    measure_steps(given.rounds, given.size)
    measure_index()
    measure_bytes()


if __name__ == "__main__":
    main()
