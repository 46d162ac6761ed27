"""Draw a picture, fine-tune on photographs, draw it again and score both. Offline, on a CPU, in about two minutes.

python examples/quickstart.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from d4k import Pipeline
from d4k.evaluation import score_table
from d4k.images import save_picture


def main(folder: Path, *, size: int = 256, sampling_steps: int = 28, training_steps: int = 20) -> None:
    """Write `before/`, `after/` and the fine-tuned `run/model/` into a new folder."""
    pipe = Pipeline.from_pretrained("tiny-sd3")
    draw(pipe, folder / "before", size, sampling_steps)
    pipe.train(
        dataset="sample-photos",
        dataset_options={"names": ["astronaut", "coffee", "camera", "rocket"]},
        loss="wavelet",
        output_dir=folder / "run",
        steps=training_steps,
        width=size,
        height=size,
        batch_size=4,
    )
    draw(pipe, folder / "after", size, sampling_steps)
    metrics = ["glcm", "compression-ratio"]
    print(score_table({name: pipe.evaluate(folder / name, metrics) for name in ("before", "after")}))


def draw(pipe: Pipeline, folder: Path, size: int, steps: int) -> None:
    """Draw one prompt with two seeds, and store the recipe in each file."""
    for picture in pipe.generate(
        "a cup of coffee on a wooden table", width=size, height=size, steps=steps, seed=[0, 1]
    ):
        recipe = picture.info["d4k"]
        save_picture(picture, folder / f"coffee-seed{recipe['seed']}.png", recipe=recipe)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))
