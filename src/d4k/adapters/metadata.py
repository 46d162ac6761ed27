"""The settings in the metadata of an adapter: which are taken, what they may say, and what is handed to peft.

peft compiles the keys of `rank_pattern` and `alpha_pattern`, and `target_modules` where it is a string, as regular
expressions. A file may say anything, also a pattern that runs for hours. d4k runs none: keys must be plain names of
layers, which layers have an adapter is read off the tensors, and peft is handed exact names with every sign escaped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from d4k.config import flag, number, table, whole
from d4k.errors import CheckpointError, ConfigError
from d4k.records import read_record

__all__ = ["LoraRecord", "for_peft", "read_settings", "scales"]

PREFIX = "transformer."
PLAIN = re.compile(r"\^?(?:\w|\\?[.-])+")
PASSED_OVER = frozenset({
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "peft_version", "revision", "runtime_config", "task_type",
})  # fmt: skip
"""Settings of peft that say where an adapter came from, or choose layers, which the tensors do."""

RANDOM = (True, False, None, "gaussian", "orthogonal")
"""First values that loading replaces; other `init_lora_weights` change the model's own weights."""


def _is_patterns(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    table()(owner, attribute, value)
    for name in value:
        if not PLAIN.fullmatch(name):
            raise ConfigError(
                f"{attribute.name} must name layers (letters, digits, dots), got the pattern {name[:80]!r}: "
                "d4k runs no patterns that a file brings"
            )


def _is_ranks(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    _is_patterns(owner, attribute, value)
    for rank in value.values():
        whole(1)(owner, attribute, rank)


def _is_alphas(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    _is_patterns(owner, attribute, value)
    for alpha in value.values():
        number()(owner, attribute, alpha)


def _is_lora(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if value != "LORA":
        raise ConfigError(f"{attribute.name} must be LORA, got {value!r}: d4k reads no other kind of adapter")


def _is_none(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if value != "none":
        raise ConfigError(f"{attribute.name} must be 'none', got {value!r}: d4k adds no biases of an adapter")


def _is_random(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if not any(value is each or (isinstance(value, str) and value == each) for each in RANDOM):
        raise ConfigError(
            f"{attribute.name} is {value!r}, which changes the model's own weights when the adapter is loaded; "
            "convert it to a plain LoRA (peft: path_initial_model_for_weight_conversion)"
        )


@frozen
class LoraRecord:
    """The settings of peft's `LoraConfig` that d4k takes from a file.

    Args:
        r: rank of the layers that `rank_pattern` does not name.
        lora_alpha: an update counts alpha / rank; of the layers that `alpha_pattern` does not name.
        target_modules: names of layers; not used, since the tensors say which layers there are.
        rank_pattern: layer, or the end of its name -> rank.
        alpha_pattern: layer, or the end of its name -> alpha.
        use_rslora: an update counts alpha / sqrt(rank).
        use_dora: directions and magnitudes are apart (DoRA).
        lora_bias: the second matrices have biases.
        lora_dropout: share of inputs that training left out.
        bias: of the model's layers; "none".
        fan_in_fan_out: weights are stored transposed.
        init_lora_weights: how training began.
        peft_type: "LORA".
    """

    r: int = field(default=8, validator=whole(1))
    lora_alpha: float = field(default=8, validator=number())
    target_modules: Any = None
    rank_pattern: Mapping[str, int] = field(factory=dict, validator=_is_ranks)
    alpha_pattern: Mapping[str, float] = field(factory=dict, validator=_is_alphas)
    use_rslora: bool = field(default=False, validator=flag())
    use_dora: bool = field(default=False, validator=flag())
    lora_bias: bool = field(default=False, validator=flag())
    lora_dropout: float = field(default=0.0, validator=number(0, 1))
    bias: str = field(default="none", validator=_is_none)
    fan_in_fan_out: bool = field(default=False, validator=flag())
    init_lora_weights: Any = field(default=True, validator=_is_random)
    peft_type: str = field(default="LORA", validator=_is_lora)


def read_settings(stored: Any, file: Path, ranks: Mapping[str, int]) -> dict[str, Any]:
    """The settings that the metadata of a file holds, checked against its tensors; empty where it holds none.

    Args:
        stored: the metadata, from JSON.
        file: for messages.
        ranks: of the layers, as the tensors have them.

    Raises:
        CheckpointError: a setting is not allowed, unknown, or not that of the tensors.
    """
    where = f"the metadata of adapter {file}"
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"{where} must hold a JSON object, got {type(stored).__name__}")
    own = {key.removeprefix(PREFIX): value for key, value in stored.items() if key.startswith(PREFIX)}
    if not own:
        return {}
    known = {f.name for f in attrs.fields(LoraRecord)}
    strange = sorted(name for name, value in own.items() if name not in known | PASSED_OVER and not _usual(name, value))
    if strange:
        raise CheckpointError(
            f"{where} sets {', '.join(strange[:5])}, which d4k does not know: "
            "load it with diffusers, and save it there without"
        )
    kept = {name: value for name, value in own.items() if name in known}
    read_record(LoraRecord, kept, where, CheckpointError)
    for layer, (rank, _) in scales(kept, ranks).items():
        if rank != ranks[layer]:
            raise CheckpointError(
                f"adapter {file} says rank {rank}, but its matrices of '{layer}' have {ranks[layer]}; get it again"
            )
    targets = kept.get("target_modules")
    plain = isinstance(targets, list) and all(isinstance(name, str) and PLAIN.fullmatch(name) for name in targets)
    return {**kept, "target_modules": targets if plain else sorted(ranks)}


def _usual(name: str, value: Any) -> bool:
    """Whether a setting is at its default in peft, or says nothing: diffusers writes every setting there is."""
    from peft import LoraConfig

    usual = LoraConfig().to_dict()
    return value in (None, False, [], {}) or (name in usual and value == usual[name])


def scales(settings: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, tuple[int, float]]:
    """Rank and alpha of every layer, as settings say."""
    by_rank, by_alpha = settings.get("rank_pattern", {}), settings.get("alpha_pattern", {})
    rank, alpha = settings.get("r", 8), settings.get("lora_alpha", 8)
    return {layer: (_named(by_rank, layer, rank), _named(by_alpha, layer, alpha)) for layer in ranks}


def _named(patterns: Mapping[str, Any], layer: str, usual: Any) -> Any:
    """The value of the first name that is the layer's or, without `^`, the end of it: what peft finds for names."""
    for name, value in patterns.items():
        exact, plain = name.startswith("^"), name.removeprefix("^").replace("\\", "")
        if layer == plain or (not exact and layer.endswith(f".{plain}")):
            return value
    return usual


def for_peft(settings: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, Any]:
    """Settings as peft's `LoraConfig` takes them, with exact names of layers that mean themselves in any pattern."""
    said = scales(settings, ranks)
    rank = Counter(rank for rank, _ in said.values()).most_common(1)[0][0]
    alpha = Counter(alpha for _, alpha in said.values()).most_common(1)[0][0]
    flags = {name: settings[name] for name in ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "lora_dropout")
             if name in settings}  # fmt: skip
    return {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(ranks),
        "rank_pattern": {f"^{re.escape(layer)}": own for layer, (own, _) in said.items() if own != rank},
        "alpha_pattern": {f"^{re.escape(layer)}": own for layer, (_, own) in said.items() if own != alpha},
        **flags,
    }
