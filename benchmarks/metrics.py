"""How much faster a folder of 2048x2048 pictures is scored than in the way of the published scripts.

Both measure the same pictures with the same random weights of the true architectures (CLIP ViT-B/16, CLIP ViT-L/14
with its aesthetics head, Inception-v3), so that nothing is downloaded. The published way, part by part: FID through
torchmetrics on one core, a CLIP model that is read anew for each picture, GLCM by scikit-image, JPEG by Pillow. Values
must be equal.

    python benchmarks/metrics.py [--pictures N] [--size SIDE]
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage.feature import graycomatrix
from skimage.measure import shannon_entropy
from torch import nn

from d4k import create
from d4k.evaluation import Measuring, Subject, measure
from d4k.images import open_picture, picture_size, save_picture, to_tensor

PATCH = 64
MODELS = {"clip-score": "ViT-B-16-quickgelu", "aesthetics": "ViT-L-14-quickgelu"}
HEAD = ((768, 1024), (1024, 128), (128, 64), (64, 16), (16, 1))


def make_pictures(folder: Path, count: int, side: int) -> list[Path]:
    """The sample photographs, enlarged and each cut at another place."""
    files, photos = [], create("dataset", "sample-photos")
    for number in range(count):
        photo = open_picture(photos[number % len(photos)].source)
        left = number * 16 % 128
        cut = photo.crop((left, left, photo.width, photo.height))
        files.append(folder / f"{number:03d}.png")
        save_picture(cut.resize((side, side), Image.Resampling.LANCZOS), files[-1])
    return files


def make_weights(folder: Path) -> dict[str, Path]:
    """Random weights in the files that the metrics read."""
    torch.manual_seed(0)
    files = {}
    for name, model in MODELS.items():
        clip = open_clip.create_model(model, pretrained=None, load_weights=False)
        files[name] = folder / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in clip.state_dict().items()}, files[name])
    layers = [nn.Linear(*sizes) for sizes in HEAD]
    named = dict(zip((0, 2, 4, 6, 7), layers, strict=True))
    head = {f"layers.{place}.{key}": value for place, one in named.items() for key, value in one.state_dict().items()}
    files["head"] = folder / "head.pth"
    torch.save(head, files["head"])
    files["fid"] = folder / "inception.pth"
    torch.save(inception().state_dict(), files["fid"])
    return files


def inception() -> Any:
    """torch-fidelity's network with random weights whose features differ between pictures."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    cls = module.FeatureExtractorInceptionV3
    fetch, read = module.load_state_dict_from_url, cls.load_state_dict
    module.load_state_dict_from_url, cls.load_state_dict = lambda *_, **__: {}, lambda *_, **__: None
    try:
        network = cls("inception-v3-compat", ["2048"])
    finally:
        module.load_state_dict_from_url, cls.load_state_dict = fetch, read
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.normal_(std=(2 / layer.weight[0].numel()) ** 0.5, generator=generator)
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.data.normal_(std=0.1, generator=generator)
    return network


def published_glcm(files: list[Path]) -> float:
    """Patch by patch, as the scripts do."""
    angles, scores = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], []
    for file in files:
        red, green, blue = np.asarray(open_picture(file)).astype(np.int32).transpose(2, 0, 1)
        levels = ((red * 4899 + green * 9617 + blue * 1868 + 8192 >> 14) // 4).astype(np.uint8)
        patches = [
            levels[y : y + PATCH, x : x + PATCH]
            for y in range(0, len(levels), PATCH)
            for x in range(0, len(levels), PATCH)
        ]
        found = [shannon_entropy(graycomatrix(patch, [1, 2, 3, 4], angles, 64, normed=True)) for patch in patches]
        scores.append(np.mean(found))
    return float(np.mean(scores))


def published_compression(files: list[Path]) -> float:
    """Raw bytes to JPEG bytes."""
    raw, encoded = 0, 0
    for file in files:
        picture, stream = open_picture(file), io.BytesIO()
        picture.save(stream, "JPEG", quality=95)
        raw, encoded = raw + picture.width * picture.height * 3, encoded + stream.tell()
    return raw / encoded


def published_clip(files: list[Path], prompts: list[str], name: str, weights: Mapping[str, Path]) -> float:
    """Read the model anew for each picture."""
    values = []
    for file, prompt in zip(files, prompts, strict=True):
        model = open_clip.create_model(MODELS[name], pretrained=None, load_weights=False).eval()
        model.load_state_dict(load_file(weights[name]))
        size = model.visual.image_size
        side = size[0] if isinstance(size, tuple) else size
        pixels = open_clip.image_transform(side, is_train=False)(open_picture(file))[None]
        with torch.no_grad():
            picture = nn.functional.normalize(model.encode_image(pixels), dim=-1)[0]
            if name == "aesthetics":
                values.append(float(headed(picture, torch.load(weights["head"], weights_only=True))))
                continue
            text = nn.functional.normalize(model.encode_text(open_clip.get_tokenizer(MODELS[name])([prompt])), dim=-1)
        values.append(100 * max(float(picture @ text[0]), 0.0))
    return float(np.mean(values))


def headed(picture: torch.Tensor, head: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The aesthetics head, layer by layer."""
    for place in (0, 2, 4, 6, 7):
        picture = nn.functional.linear(picture, head[f"layers.{place}.weight"], head[f"layers.{place}.bias"])
    return picture[0]


def published_fid(files: list[Path], references: list[Path], weights: Path) -> float:
    """FID of torchmetrics on one core, a picture at a time."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = inception()
    network.load_state_dict(torch.load(weights, weights_only=True))
    metric = FrechetInceptionDistance(feature=_Features(network))
    for real, group in ((True, references), (False, files)):
        for file in group:
            metric.update(to_tensor(open_picture(file))[None], real=real)
    torch.set_num_threads(threads)
    return float(metric.compute())


class _Features(nn.Module):
    """A network as torchmetrics takes one: (B, 3, H, W) uint8 to (B, 2048)."""

    num_features = 2048

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The features of pictures; torchmetrics first asks with a picture that is no uint8."""
        found: torch.Tensor = self.network(pixels.to(torch.uint8))[0]
        return found


def timed(score: Callable[[], float]) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and the score."""
    start, used = time.perf_counter(), time.process_time()
    value = score()
    return time.perf_counter() - start, time.process_time() - used, value


def main() -> None:
    """Measure both ways, print a table, and fail where values differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4, help="how many pictures, and as many references")
    parser.add_argument("--size", type=int, default=2048, help="pixels a side, a multiple of 64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = make_pictures(folder / "pictures", 2 * options.pictures, options.size)
        compare(files[: options.pictures], files[options.pictures :], make_weights(folder))


def compare(files: list[Path], references: list[Path], weights: Mapping[str, Path]) -> None:
    """Score in both ways and print how long each part takes."""
    prompts = [f"a photograph, number {number}" for number in range(len(files))]
    published: dict[str, Callable[[], float]] = {
        "fid": lambda: published_fid(files, references, weights["fid"]),
        "clip-score": lambda: published_clip(files, prompts, "clip-score", weights),
        "aesthetics": lambda: published_clip(files, prompts, "aesthetics", weights),
        "glcm": lambda: published_glcm(files),
        "compression-ratio": lambda: published_compression(files),
    }
    metric_options: dict[str, dict[str, Any]] = {
        "fid": {"weights": str(weights["fid"]), "size": picture_size(files[0])[0]},
        "clip-score": {"weights": str(weights["clip-score"])},
        "aesthetics": {"weights": str(weights["aesthetics"]), "head": str(weights["head"])},
    }
    create("metric", "glcm").observe(image=[torch.zeros(3, PATCH, PATCH, dtype=torch.uint8)])  # compiles
    theirs = {name: timed(score) for name, score in published.items()}
    subjects = [Subject(file.stem, file, prompt) for file, prompt in zip(files, prompts, strict=True)]

    def ours(*names: str) -> dict[str, float]:
        metrics = {name: create("metric", name, **metric_options.get(name, {})) for name in names}
        settings = Measuring(references=references if "fid" in names else (), device="cpu", resamples=0)
        return {score.metric: score.value for score in measure(subjects, metrics, settings).scores}

    parts = {name: timed(lambda name=name: ours(name)[name]) for name in published}  # type: ignore[misc]
    values: dict[str, float] = {}
    together = timed(lambda: values.update(ours(*published)) or 0.0)
    report(theirs, parts, together, values)


def report(
    theirs: Mapping[str, tuple[float, float, float]],
    parts: Mapping[str, tuple[float, float, float]],
    together: tuple[float, float, float],
    values: Mapping[str, float],
) -> None:
    """The table; an error where two values are apart by more than a ten-thousandth."""
    names = ("torch", "torchmetrics", "open_clip_torch", "scikit-image", "pillow")
    print(", ".join(f"{name} {version(name)}" for name in names), f"{os.cpu_count()} cores", sep="; ")
    print(f"{'metric':20}{'published s':>12}{'share':>7}{'d4k s':>9}{'ratio':>8}{'processor':>11}  values")
    whole = sum(seconds for seconds, _, _ in theirs.values())
    for name, (seconds, used, value) in theirs.items():
        mine = parts[name]
        ratios = f"{seconds / mine[0]:8.1f}{used / mine[1]:11.1f}"
        print(
            f"{name:20}{seconds:12.2f}{seconds / whole:7.0%}{mine[0]:9.2f}{ratios}  {value:.6g} and {values[name]:.6g}"
        )
    used = sum(processor for _, processor, _ in theirs.values())
    ratios = f"{whole / together[0]:8.1f}{used / together[1]:11.1f}"
    print(f"{'all in one pass':20}{whole:12.2f}{1:7.0%}{together[0]:9.2f}{ratios}")
    for name, (_, _, value) in theirs.items():
        if abs(value - values[name]) > 1e-4 * max(1.0, abs(value)):
            raise SystemExit(f"{name} is {values[name]} here, and {value} in the published way")


if __name__ == "__main__":
    main()
