"""What cannot fit is refused by arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from d4k import ConfigError, Pipeline
from d4k.models import adapter_numbers, check_config, limits, refuse_large_training, refuse_too_large
from d4k.planning import shapes


@pytest.fixture(scope="module")
def tiny() -> Any:
    return Pipeline.from_pretrained("tiny-sd3").backbone


@pytest.mark.parametrize("size", [(10**7, 10**7), (16, 10**15 * 16), (10**12, 10**12)])
def test_a_picture_beyond_all_memory_is_refused(tiny: Any, size: tuple[int, int]) -> None:
    """With what it takes and what there is, in gigabytes."""
    with pytest.raises(ConfigError, match=r"takes at least [\d,.]+ GB on the cpu beside the weights, and [\d,.]+ GB"):
        refuse_too_large(tiny, *size)


@pytest.mark.parametrize("size", [128, 512])
def test_a_picture_of_a_usual_size_passes(tiny: Any, size: int) -> None:
    """Nothing is said of it."""
    refuse_too_large(tiny, size, size)
    refuse_too_large(shapes("sd3-medium"), 10**7, 10**7)  # a plan refuses nothing


def test_a_batch_counts(tiny: Any) -> None:
    """The message says how many pictures were asked for."""
    with pytest.raises(ConfigError, match=r"100000000 pictures of 512x512 pixels"):
        refuse_too_large(tiny, 512, 512, batch_size=10**8)


@pytest.mark.parametrize(("free", "passes"), [(80e6, True), (5e6, False)])
def test_the_bound_is_below_what_decoding_takes(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, free: float, passes: bool
) -> None:
    """With room for it, 512x512 pixels pass; with a tenth of that they do not."""
    monkeypatch.setattr(limits, "free_bytes", lambda device: free)
    if passes:
        refuse_too_large(tiny, 512, 512)
    else:
        with pytest.raises(ConfigError, match="GB are free"):
            refuse_too_large(tiny, 512, 512)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 10**8, "trained": 0}, "100000000 pictures"),
        ({"batch_size": 1, "trained": 10**13}, "training the adapter, of that rank, takes at least 160,000.0 GB"),
    ],
)
def test_a_run_beyond_all_memory_is_refused(tiny: Any, settings: dict[str, Any], words: str) -> None:
    """By its batch or by its rank."""
    with pytest.raises(ConfigError, match=words):
        refuse_large_training(tiny, 256, 256, **settings)


def test_a_small_run_passes(tiny: Any) -> None:
    """All weights or an adapter."""
    refuse_large_training(tiny, 256, 256, batch_size=2, trained=0)
    numbers = adapter_numbers(tiny.trainable, ["attn.to_q"], 4)
    refuse_large_training(tiny, 256, 256, batch_size=2, trained=numbers)


def test_numbers_of_an_adapter_are_those_that_peft_makes() -> None:
    """Counted without making it."""
    from d4k.adapters import add_adapter, check_targets
    from d4k.config import AdapterSettings

    module = shapes("tiny-sd3").trainable
    expected = adapter_numbers(module, check_targets(module, None), 4)
    add_adapter(module, AdapterSettings(rank=4))
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == expected > 0


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux", "sd3-medium", "sd3.5-large", "flux-dev"])
def test_configurations_of_published_models_pass(model: str) -> None:
    """None asks for more than any model has."""
    for part in shapes(model).components.values():
        config: Any = part.config
        check_config(dict(config) if hasattr(config, "keys") else config.to_dict(), model)
    assert torch.get_default_device().type == "cpu"
