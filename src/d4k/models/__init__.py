"""From a name to a loaded model."""

from d4k.models.card import CARD, FORMAT, fetch_json, read_card, write_card
from d4k.models.checks import check_model, check_names, check_part, check_single_file
from d4k.models.downloads import missing_from_cache
from d4k.models.find import LOADED_WITH, Source, find_model
from d4k.models.headers import (
    AGAIN,
    NAMES,
    PART_WEIGHTS,
    SAFE,
    Shapes,
    count,
    model_parts,
    part_bytes,
    read_pickle,
    read_shapes,
    used_variant,
    weight_files,
)
from d4k.models.hub import OFFLINE, fetch_denoiser, fetch_file, fetch_model
from d4k.models.load import check_finite, disk_errors, load_pipeline, save_pipeline
from d4k.models.placement import (
    AUTOENCODER,
    DENOISER,
    DTYPES,
    OFFLOADS,
    QUANTIZERS,
    check_placement,
    computing_device,
    computing_dtype,
    offload_part,
    place,
    quantization,
    resident,
)
from d4k.models.reference import ModelRef, Training
from d4k.models.run_folder import TRAINABLE, latest_state
from d4k.models.shapes import Tokenizer, empty_pipeline
from d4k.models.speed import STEP_CACHES, holding_step_cache, speed_up

__all__ = [
    "AGAIN",
    "AUTOENCODER",
    "CARD",
    "DENOISER",
    "DTYPES",
    "FORMAT",
    "LOADED_WITH",
    "NAMES",
    "OFFLINE",
    "OFFLOADS",
    "PART_WEIGHTS",
    "QUANTIZERS",
    "SAFE",
    "STEP_CACHES",
    "TRAINABLE",
    "ModelRef",
    "Shapes",
    "Source",
    "Tokenizer",
    "Training",
    "check_finite",
    "check_model",
    "check_names",
    "check_part",
    "check_placement",
    "check_single_file",
    "computing_device",
    "computing_dtype",
    "count",
    "disk_errors",
    "empty_pipeline",
    "fetch_denoiser",
    "fetch_file",
    "fetch_json",
    "fetch_model",
    "find_model",
    "holding_step_cache",
    "latest_state",
    "load_pipeline",
    "missing_from_cache",
    "model_parts",
    "offload_part",
    "part_bytes",
    "place",
    "quantization",
    "read_card",
    "read_pickle",
    "read_shapes",
    "resident",
    "save_pipeline",
    "speed_up",
    "used_variant",
    "weight_files",
    "write_card",
]
