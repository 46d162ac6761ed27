"""Generate pictures, fine-tune on photographs, generate again and score both. Offline, on a CPU, in about two minutes.

python examples/quickstart.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from d4k import Job, Pipeline
from d4k.evaluation import score_table


def main(folder: Path, *, size: int = 256, sampling_steps: int = 28, training_steps: int = 20) -> None:
    """Write `before/`, `after/` and the fine-tuned `run/model/` into a new folder."""
    pipe = Pipeline.from_pretrained("tiny-sd3")
    prompt = "a cup of coffee on a wooden table"
    jobs = [Job(prompt, seed=seed, width=size, height=size) for seed in (0, 1)]
    pipe.generate_to(folder / "before", jobs, steps=sampling_steps)
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
    pipe.generate_to(folder / "after", jobs, steps=sampling_steps)
    metrics = ["glcm", "compression-ratio"]
    print(score_table({name: pipe.evaluate(folder / name, metrics) for name in ("before", "after")}))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))
