"""What a training step really allocates, and a QLoRA model without a checkpoint: for stages.py and tests/planner."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from eeve_axolotl.rows.freezing import optimizer_state_bytes

RANK = 64  # of the recipes' adapters


def standing_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights (with what quantised ones need beside them), gradients and the optimiser's state."""
    held = {}
    for each in model.parameters():
        state = getattr(each, "quant_state", None)
        parts = [each] if state is None else [each, *_tensors(state)]
        held |= {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    gradients = sum(each.grad.nbytes for each in model.parameters() if each.grad is not None)
    return sum(held.values()) + gradients + optimizer_state_bytes(optimizer)


def peak_bytes(work: Callable[[], None], device: str = "cpu") -> int:
    """The most bytes that were allocated at once during `work`, beside what was there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    now = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def qlora(model: nn.Module, modules_to_save: list[str], rank: int = RANK) -> nn.Module:
    """`model` with the linear weights of its layers in NF4 and adapters on them, as Axolotl's `adapter: qlora` with
    `lora_target_linear` makes it, in place; `modules_to_save` train in full."""
    import bitsandbytes as bnb
    from peft import LoraConfig, get_peft_model

    for layer in model.model.layers:
        for name, module in [(name, each) for name, each in layer.named_modules() if type(each) is nn.Linear]:
            weight = module.weight.data
            small = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=False,
                compute_dtype=weight.dtype,
                quant_type="nf4",
                device="meta",
            )
            small.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=small)
            layer.set_submodule(name, small.to(weight.device))
    model.is_loaded_in_4bit = True
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        modules_to_save=modules_to_save or None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _tensors(state) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside a quantised weight."""
    parts = [state.absmax, state.code, *([] if state.offset is None else [state.offset])]
    return parts + (_tensors(state.state2) if state.nested else [])
