"""Canaries: what d4k uses of other packages without their promise is there, and does what d4k takes it to do."""

from __future__ import annotations

import ast
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import CacheMixin, FirstBlockCacheConfig, FluxTransformer2DModel, SD3Transformer2DModel
from torch import nn

from d4k import D4KError, upstream

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("src", "plugins/*/src", "docs/tutorial/*/src") for path in ROOT.glob(f"{folder}/**/*.py")
)
UPSTREAM = ("torch", "diffusers", "transformers", "peft", "accelerate")
UNDOCUMENTED = {where.partition(":")[0] for where, _ in upstream.NAMES.values()} - {
    "torch", "diffusers", "transformers", "accelerate.utils",
}  # fmt: skip
HOOKS = ("_hf_hook", "_diffusers_hook")


def flux() -> Any:
    return FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=1,
        joint_attention_dim=4, pooled_projection_dim=4, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip


@pytest.mark.parametrize("name", upstream.NAMES)
def test_every_name_is_there(name: str) -> None:
    """A release that drops or moves one fails here, and the message says which and what d4k does with it."""
    where, use = upstream.NAMES[name]
    try:
        upstream.take(name)
    except D4KError as error:
        pytest.fail(f"{where} is gone, with which d4k can {use}; mend src/d4k/upstream.py. {error}")


def test_a_name_that_is_gone_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is missing, what for, and which version to install."""
    monkeypatch.setitem(upstream.NAMES, "gone", ("torch.utils._gone:nothing", "do something"))  # type: ignore[arg-type]
    words = f"torch {metadata.version('torch')} has no torch.utils._gone.nothing, which d4k uses to do something"
    with pytest.raises(D4KError, match=re.escape(words)):
        _ = upstream.gone


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = upstream.nothing


def test_the_private_names_of_others_are_used_in_one_module_only() -> None:
    """No other source imports an undocumented module, or a name with an underscore in front."""
    found = []
    for path in SOURCES:
        if path.name == "upstream.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in UPSTREAM:
                words = [*node.module.split("."), *(alias.name for alias in node.names)]
                if node.module in UNDOCUMENTED or any(word.startswith("_") for word in words):
                    found.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.Constant) and node.value in HOOKS:
                found.append(f"{path}:{node.lineno}")
    assert found == []


class Seen(upstream.TorchDispatchMode):  # type: ignore[misc]
    """Names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_operations_of_forward_and_backward() -> None:
    """Also of the backward pass, which the engine runs with the mode on."""
    weight = torch.ones(2, 2, requires_grad=True)
    with Seen() as forward:
        loss = (weight @ weight).sum()
    with Seen() as backward:
        upstream._engine_run_backward((loss,), (torch.ones(()),), False, False, (), accumulate_grad=True)
    assert forward.names.count("aten.mm") == 1
    assert backward.names.count("aten.mm") == 2
    assert weight.grad is not None


def test_tensors_are_found_and_replaced_in_nested_arguments() -> None:
    """`tree_leaves` and `tree_map`."""
    nested = ({"a": 1, "b": [2, (3,)]}, 4)
    assert upstream.tree_leaves(nested) == [1, 2, 3, 4]
    assert upstream.tree_map(lambda value: value * 2, nested) == ({"a": 2, "b": [4, (6,)]}, 8)


def test_a_storage_has_one_key_for_all_its_views() -> None:
    """Another storage has another."""
    values = torch.zeros(4)
    assert upstream.storage_key(values.untyped_storage()) == upstream.storage_key(values[1:].untyped_storage())
    assert upstream.storage_key(values.untyped_storage()) != upstream.storage_key(torch.zeros(4).untyped_storage())


def test_operations_are_counted_by_their_formula() -> None:
    """Two for each multiplication of a matrix product; an addition has no formula."""
    left, right = torch.empty(3, 4, device="meta"), torch.empty(4, 5, device="meta")
    count = upstream.operation_flops(torch.ops.aten.mm.default)
    assert count is not None
    assert count(left, right, out_val=left @ right) == 2 * 3 * 4 * 5
    assert upstream.operation_flops(torch.ops.aten.add.Tensor) is None


def test_fused_attention_has_shapes_on_the_meta_device() -> None:
    """And a gradient."""
    query = torch.empty(1, 2, 8, 4, device="meta", requires_grad=True)
    attended = upstream.fused_attention()(query, query, query, None, True, 0.0, False, scale=None)[0]
    assert attended.shape == query.shape
    assert attended.requires_grad


def test_old_names_of_tensors_are_read() -> None:
    """Diffusers renames the attention of old autoencoders."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, mid_block_add_attention=True)
    now = "encoder.mid_block.attentions.0.to_q.weight"
    old = {now.replace("to_q", "query"): vae.state_dict()[now]}
    upstream.rename_on_load(vae, old)
    assert list(old) == [now]


def test_what_a_class_ignores_and_keeps_is_told() -> None:
    """Patterns of a model of diffusers, modules of one of transformers."""
    from transformers import T5EncoderModel

    assert upstream.ignored_on_load(SD3Transformer2DModel) == ()
    assert upstream.kept_in_float32(T5EncoderModel) == ("wo",)


def test_blocks_are_named_where_the_model_names_none() -> None:
    """`compile_repeated_blocks` reads them."""
    model, other = flux(), nn.Module()
    before = model._repeated_blocks
    upstream.repeat_blocks(model, ["X"])
    upstream.repeat_blocks(other, ["X"])
    assert model._repeated_blocks == before
    assert other._repeated_blocks == ["X"]
    assert hasattr(FluxTransformer2DModel, "compile_repeated_blocks")


def test_a_step_cache_is_emptied() -> None:
    """It is a method of diffusers' mixin, and does not switch the cache off."""
    model = flux()
    model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    upstream.reset_step_cache(model)
    assert isinstance(model, CacheMixin)
    assert model.is_cache_enabled


def test_attention_backends_have_names_and_a_model_may_have_the_choice() -> None:
    """FLUX.1's processors have it, SD3's do not."""
    assert {"native", "flash", "sage"} <= set(upstream.attention_backends())
    assert upstream.chooses_attention(flux().transformer_blocks[0].attn.processor)
    sd3 = SD3Transformer2DModel(
        sample_size=4, in_channels=2, num_layers=1, attention_head_dim=4, num_attention_heads=1,
        joint_attention_dim=4, caption_projection_dim=4, pooled_projection_dim=4, pos_embed_max_size=4,
    )  # fmt: skip
    assert not upstream.chooses_attention(sd3.transformer_blocks[0].attn.processor)


def test_single_files_have_a_conversion_by_class() -> None:
    """The function that renames tensors of the original release."""
    for name in ("FluxTransformer2DModel", "SD3Transformer2DModel"):
        assert callable(upstream.SINGLE_FILE_LOADABLE_CLASSES[name]["checkpoint_mapping_fn"])


def test_settings_of_an_adapter_follow_from_its_tensors() -> None:
    """Rank and alpha, as peft names them."""
    tensors = {"a.lora_A.weight": torch.zeros(3, 8), "a.lora_B.weight": torch.zeros(8, 3)}
    found = upstream.get_peft_kwargs({"^a.lora_B.weight": 3}, {"^a.alpha": 6.0}, tensors)
    assert (found["r"], found["lora_alpha"], list(found["target_modules"])) == (3, 6.0, ["a"])
    assert upstream.get_pattern_key(["other", "a"], "blocks.a") == "a"


def test_hooks_of_both_packages_are_seen() -> None:
    """Those of accelerate on a module, and those of diffusers."""
    from accelerate.hooks import ModelHook, add_hook_to_module
    from diffusers.hooks import HookRegistry

    plain, moved, grouped = (nn.Linear(1, 1) for _ in range(3))
    hook = ModelHook()
    add_hook_to_module(moved, hook)
    HookRegistry.check_if_exists_or_initialize(grouped)
    assert [upstream.has_hooks(module) for module in (plain, moved, grouped)] == [False, True, True]
    assert upstream.accelerate_hook(moved) is hook
    assert upstream.accelerate_hook(plain) is None


def test_a_second_run_may_ask_for_another_precision() -> None:
    """Accelerate's state of the whole process is forgotten, and its device is told by the environment."""
    for precision in ("no", "bf16"):
        upstream.reset_accelerator()
        with upstream.patch_environment(ACCELERATE_TORCH_DEVICE="cpu"):
            assert os.environ["ACCELERATE_TORCH_DEVICE"] == "cpu"
            assert Accelerator(mixed_precision=precision, cpu=True).mixed_precision == precision
            assert upstream.AcceleratorState().mixed_precision == precision
    upstream.reset_accelerator()


def test_this_process_knows_which_it_is() -> None:
    """Alone, it is the first of one."""
    found = upstream.get_cpu_distributed_information()
    assert (found.rank, found.world_size, found.local_rank) == (0, 1, 0)
