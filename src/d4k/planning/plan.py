"""Will it fit? Parameters, tokens, operations and memory of generating and training, without reading a weight.

Shapes come from a model's configuration files, put on the meta device; what a step holds is followed through the
denoiser itself, operation by operation, so any backbone that loads on the meta device can be planned.
One gigabyte is 10^9 bytes.
"""

from __future__ import annotations

from typing import Any

import attrs

from d4k.adapters import resolve_model
from d4k.config import PRECISIONS
from d4k.errors import ConfigError
from d4k.models import Model, ModelRef
from d4k.planning.generation import Area, generating, measure_parts, sampling_step
from d4k.planning.shapes import load_shapes, reference
from d4k.planning.training import prepare, run_files, training
from d4k.planning.values import Generation, Memory, Plan, RunPlan
from d4k.protocols import Backbone
from d4k.sampling import check_size

__all__ = ["plan", "plan_training"]

USUAL = Generation()


def plan(model: str | ModelRef, generation: Generation = USUAL, run: RunPlan | None = None) -> Plan:
    """Plan generating with a model, and training it, before anything is loaded.

    Attention is taken to run in a kernel that never holds the matrix of scores, as PyTorch's do on GPUs and the CPU.

    Args:
        model: a registered checkpoint, a folder in the diffusers layout, or a Hub id; or a `ModelRef`, which also names
            a revision, another denoiser, adapters, and options of the backbone.
        generation: the pictures, and how weights are held while they are generated.
        run: how the model is trained on pictures of that size; None plans no training.

    Raises:
        UnknownNameError: there is no such model.
        ConfigError: the size does not suit the backbone, an option does not exist, or the backbone cannot be planned.
        CheckpointError: a configuration file is missing, or the Hub cannot be reached for it.
    """
    ref = reference(model)
    found, adapters = resolve_model(ref, configs=True)
    if run is not None and adapters:
        raise ConfigError(
            f"a run cannot train a model that has adapters ({', '.join(found.adapters)}): plan it without them, or "
            "merge them first (d4k adapter merge)"
        )
    backbone = load_shapes(found, adapters, generation.dtype)
    width, height = generation.width or backbone.defaults.size, generation.height or backbone.defaults.size
    check_size(backbone, width, height, name=found.backbone)
    area, spec = Area(width, height, generation.batch_size), backbone.latent
    step, parts = sampling_step(backbone, found.backbone, area), measure_parts(backbone, generation.quantize)
    memory, flops, files = (None, None, {}) if run is None else plan_training(found, run, width, height)
    return Plan(
        model=ref.name,
        backbone=found.backbone,
        settings=_settings(ref, found, attrs.evolve(generation, width=width, height=height), run),
        parts=parts,
        latent=(spec.channels, height // spec.downscale, width // spec.downscale),
        tokens=(height // spec.granularity) * (width // spec.granularity),
        text_tokens=_text_tokens(backbone),
        flops=step.flops,
        training_flops=flops,
        generation=generating(backbone, parts, step, area),
        training=memory,
        disk={"a picture at most": width * height * 3, **files},
    )


def plan_training(found: Model, run: RunPlan, width: int, height: int) -> tuple[Memory, int, dict[str, int]]:
    """Memory, operations of a pass, and files of a run.

    Args:
        found: the model.
        run: how it is trained.
        width: of the pictures, in pixels.
        height: likewise.
    """
    backbone = load_shapes(found, (), run.weights)
    prepare(backbone, run)
    files, narrow, dtype = run_files(backbone, run), None, PRECISIONS[run.precision]
    if run.sharing == "fsdp2" and dtype != run.weights:
        narrow = load_shapes(found, (), dtype)
        prepare(narrow, run)
    return *training(backbone, Area(width, height, run.batch_size), run, narrow), files


def _text_tokens(backbone: Backbone) -> int:
    tensors = backbone.encode_text([""]).tensors.values()
    return max((tensor.shape[1] for tensor in tensors if tensor.ndim == 3), default=0)


def _settings(ref: ModelRef, found: Model, generation: Generation, run: RunPlan | None) -> dict[str, Any]:
    """All that was planned for, by name; of a run with names of their own where generating has the same."""
    settings = {**attrs.asdict(generation), **found.options}
    settings |= {name: value for name in ("revision", "variant", "transformer") if (value := getattr(ref, name))}
    settings |= {"adapters": list(found.adapters)} if found.adapters else {}
    if run is not None:
        said = attrs.asdict(run, recurse=False)
        adapter = said.pop("adapter")
        settings |= {f"train_{name}": said.pop(name) for name in ("batch_size", "dtype")} | {"train_dtype": run.weights}
        settings |= said | {"adapter_rank": None if adapter is None else adapter.rank}
    return settings
