"""What d4k uses of torch, diffusers, peft and accelerate that these do not promise to keep: all of it in one place.

`NAMES` lists each of them with its place and its use; `tests/test_upstream.py` has a test for each. A name that a new
release has dropped raises one sentence that says which version to install. Names of modules are imported from here as
if they were defined here (`from d4k.upstream import tree_map`); what belongs to an object has a function below.
Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from d4k.errors import D4KError

if TYPE_CHECKING:
    from accelerate.state import AcceleratorState
    from accelerate.utils import get_cpu_distributed_information, patch_environment
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
    from diffusers.models.attention_dispatch import AttentionBackendName
    from diffusers.utils.peft_utils import get_peft_kwargs
    from peft.utils.other import get_pattern_key
    from torch.autograd.graph import _engine_run_backward
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves, tree_map

__all__ = [
    "NAMES",
    "SINGLE_FILE_LOADABLE_CLASSES",
    "AcceleratorState",
    "AttentionBackendName",
    "TorchDispatchMode",
    "_engine_run_backward",
    "accelerate_hook",
    "attention_backends",
    "block_names",
    "chooses_attention",
    "context_plan",
    "forget_shares",
    "fused_attention",
    "get_cpu_distributed_information",
    "get_pattern_key",
    "get_peft_kwargs",
    "has_hooks",
    "ignored_on_load",
    "join_tokens",
    "kept_in_float32",
    "operation_flops",
    "patch_environment",
    "rename_on_load",
    "repeat_blocks",
    "reset_accelerator",
    "reset_step_cache",
    "split_tokens",
    "storage_key",
    "take",
    "tree_leaves",
    "tree_map",
]

NAMES: Mapping[str, tuple[str, str]] = {
    "TorchDispatchMode": ("torch.utils._python_dispatch:TorchDispatchMode", "see every operation of a traced model"),
    "tree_leaves": ("torch.utils._pytree:tree_leaves", "find the tensors among an operation's arguments"),
    "tree_map": ("torch.utils._pytree:tree_map", "cast the tensors among an operation's arguments"),
    "flop_registry": ("torch.utils.flop_counter:flop_registry", "count floating-point operations"),
    "_engine_run_backward": ("torch.autograd.graph:_engine_run_backward", "differentiate while a trace goes on"),
    "storage_key": ("torch:UntypedStorage._cdata", "tell one piece of memory from another"),
    "packet": ("torch._ops:OpOverload.overloadpacket", "look an operation up by its name without the overload"),
    "fused_attention": (
        "torch:ops.aten._scaled_dot_product_efficient_attention",
        "trace attention without its matrix of scores",
    ),
    "rename_on_load": ("diffusers:ModelMixin._fix_state_dict_keys_on_load", "read old names of tensors"),
    "ignored_on_load": ("diffusers:ModelMixin._keys_to_ignore_on_load_unexpected", "skip tensors that diffusers skips"),
    "kept_in_float32": ("diffusers:ModelMixin._keep_in_fp32_modules", "know which layers stay in float32"),
    "kept_in_float32 of transformers": (
        "transformers:PreTrainedModel._keep_in_fp32_modules",
        "know which layers stay in float32",
    ),
    "repeat_blocks": ("diffusers:ModelMixin._repeated_blocks", "compile the blocks of any denoiser"),
    "block_names": ("diffusers:ModelMixin._no_split_modules", "share out the weights block by block"),
    "module_states": (
        "torch.distributed._composable_state:_module_state_mapping",
        "make a module whole again that was shared out",
    ),
    "reset_step_cache": ("diffusers.models.cache_utils:CacheMixin._reset_stateful_cache", "empty a step cache"),
    "SINGLE_FILE_LOADABLE_CLASSES": (
        "diffusers.loaders.single_file_model:SINGLE_FILE_LOADABLE_CLASSES",
        "check a single file of a denoiser before it is read",
    ),
    "AttentionBackendName": ("diffusers.models.attention_dispatch:AttentionBackendName", "list attention back-ends"),
    "chooses_attention": (
        "diffusers.models.transformers.transformer_flux:FluxAttnProcessor._attention_backend",
        "know whether a denoiser has a choice of attention",
    ),
    "context_plan": ("diffusers:ModelMixin._cp_plan", "share the tokens of a picture"),
    "ParallelConfig": ("diffusers.models._modeling_parallel:ParallelConfig", "share the tokens of a picture"),
    "apply_context_parallel": (
        "diffusers.hooks.context_parallel:apply_context_parallel",
        "share the tokens of a picture",
    ),
    "remove_context_parallel": (
        "diffusers.hooks.context_parallel:remove_context_parallel",
        "end the sharing of tokens",
    ),
    "get_peft_kwargs": ("diffusers.utils.peft_utils:get_peft_kwargs", "find an adapter's settings in its tensors"),
    "get_pattern_key": ("peft.utils.other:get_pattern_key", "find the rank of one layer of an adapter"),
    "AcceleratorState": ("accelerate.state:AcceleratorState", "begin a run"),
    "reset_accelerator": ("accelerate.state:AcceleratorState._reset_state", "begin a second run in one session"),
    "patch_environment": ("accelerate.utils:patch_environment", "tell accelerate the device"),
    "get_cpu_distributed_information": (
        "accelerate.utils:get_cpu_distributed_information",
        "know which process this is",
    ),
}
"""Name here -> where it is (module, and attribute in it), and what d4k uses it to do."""


def take(name: str) -> Any:
    """What `NAMES` lists under a name.

    Raises:
        D4KError: the installed release has no such thing any more.
    """
    (module, _, path), use = NAMES[name][0].partition(":"), NAMES[name][1]
    try:
        found = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        package = module.partition(".")[0]
        version = metadata.version(package)
        raise D4KError(
            f"{package} {version} has no {module}.{path}, which d4k uses to {use}: "
            f"install a {package} older than {version}, or a newer d4k"
        ) from error
    return found


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return take(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def storage_key(storage: Any) -> int:
    """A number that no other storage of torch has while this one lives."""
    return int(storage._cdata)


def operation_flops(operation: Any) -> Callable[..., int] | None:
    """What counts the floating-point operations of an ATen operation from its arguments; None where nothing does."""
    formula: Callable[..., int] | None = take("flop_registry").get(operation.overloadpacket)
    return formula


def fused_attention() -> Any:
    """The attention of torch that holds no matrix of scores.

    Returns:
        A callable of query, key, value, bias, whether a gradient is wanted, dropout and causality; the first of its
        results is the attended value.
    """
    return take("fused_attention")


def rename_on_load(model: Any, tensors: dict[str, Any]) -> None:
    """Give tensors of old names the names that a diffusers model has today, in place."""
    model._fix_state_dict_keys_on_load(tensors)


def ignored_on_load(model_class: Any) -> tuple[str, ...]:
    """Patterns of names of tensors that diffusers leaves out when it loads a model of this class."""
    return tuple(model_class._keys_to_ignore_on_load_unexpected or ())


def kept_in_float32(model_class: Any) -> tuple[str, ...]:
    """Names of modules that stay in float32 when a model of diffusers or transformers is loaded in float16."""
    return tuple(getattr(model_class, "_keep_in_fp32_modules", None) or ())


def repeat_blocks(module: Any, names: Iterable[str]) -> None:
    """Say which classes of blocks diffusers compiles, where its model does not say so itself."""
    if not getattr(module, "_repeated_blocks", None):
        module._repeated_blocks = list(names)


def block_names(module: Any) -> tuple[str, ...]:
    """The classes of the blocks that a diffusers model is a row of; empty where it does not say."""
    lists = (getattr(module, name, None) or () for name in ("_repeated_blocks", "_no_split_modules"))
    return tuple(dict.fromkeys(name for names in lists for name in names))


def forget_shares(module: Any) -> None:
    """Let `fully_shard` take a module, and the modules in it, that it took before and that are whole again."""
    states = take("module_states")
    for part in module.modules():
        states.pop(part, None)


def context_plan(module: Any) -> Any:
    """How diffusers splits the tokens of a model between processes; None where it does not."""
    return getattr(module, "_cp_plan", None)


def split_tokens(module: Any, mesh: Any, processes: int) -> None:
    """Let several processes compute a diffusers model together, each a part of the tokens.

    `enable_parallelism` of diffusers does the same, but not on a CPU.

    Args:
        module: with a `context_plan`.
        mesh: of torch, with the dimensions "ring" (of 1) and "ulysses".
        processes: that share the tokens: the size of "ulysses".
    """
    import torch.distributed as dist
    from diffusers import ContextParallelConfig

    config = ContextParallelConfig(ulysses_degree=processes, mesh=mesh)
    shared = take("ParallelConfig")(context_parallel_config=config)
    shared.setup(dist.get_rank(), dist.get_world_size(), mesh.device_type, mesh=mesh)
    _tell_attention(module, shared)
    take("apply_context_parallel")(module, config, context_plan(module))


def join_tokens(module: Any) -> None:
    """Undo `split_tokens`."""
    _tell_attention(module, None)
    take("remove_context_parallel")(module, context_plan(module))


def _tell_attention(module: Any, shared: Any) -> None:
    for part in module.modules():
        if hasattr(getattr(part, "processor", None), "_parallel_config"):
            part.processor._parallel_config = shared


def reset_step_cache(module: Any) -> None:
    """Empty the step cache of a diffusers model that has one switched on."""
    module._reset_stateful_cache()


def attention_backends() -> list[str]:
    """The attention back-ends that diffusers knows; names with an underscore in front are its own."""
    return [backend.value for backend in take("AttentionBackendName")]


def chooses_attention(processor: Any) -> bool:
    """Whether an attention processor of diffusers computes with the back-end that is chosen."""
    return hasattr(processor, "_attention_backend")


def accelerate_hook(module: Any) -> Any:
    """The hook by which accelerate moves a module before it computes; None where it does not."""
    return getattr(module, "_hf_hook", None)


def has_hooks(module: Any) -> bool:
    """Whether accelerate or diffusers moves a module, or layers of it, before it computes."""
    return hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook")


def reset_accelerator() -> None:
    """Forget the device and precision that accelerate keeps for the whole process."""
    take("AcceleratorState")._reset_state(reset_partial_state=True)
