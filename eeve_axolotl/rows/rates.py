"""Learning rates of each embedding matrix, in an optimiser that has one for everything."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.rows.freezing import FrozenRows

# What a group keeps besides `lr` that is a learning rate: a scheduler's peak, and the peak that AdamC measures decay by.
_ALSO_RATES = ("initial_lr", "max_lr")
_MARK = "eeve_rate"  # of a group that has a rate of its own: whose, and its peak. A saved state of groups keeps it


def give_rates(optimizer: torch.optim.Optimizer, frozen: FrozenRows, rates: Mapping[str, float]) -> None:
    """Give what trains of an embedding matrix, bias included, a learning rate of its own, in place.

    Each group of parameters is split: what has no rate of its own stays in it, first; what has one follows, in groups
    that are otherwise alike (weight decay too). So a schedule that multiplies each group's rate keeps its shape.
    Call it after `FrozenRows.protect` and before a scheduler is made; until then, calling it again changes nothing.

    Args:
        rates: peak learning rate by matrix, `input_embeddings` or `output_embeddings`. Of tied embeddings, which are
            one, the first that is named counts.

    Raises EEVEError where the optimiser has no rate for each group, or does not hold the matrix.
    """
    held = {
        matrix.role: {
            id(each) for each in frozen.model.get_submodule(matrix.module).parameters(recurse=False)
        }
        for matrix in (frozen.mask.inputs, frozen.mask.outputs)
    }
    groups: list[dict[str, Any]] = []
    found: set[int] = set()
    for group in optimizer.param_groups:
        if "lr" not in group:
            raise EEVEError(
                f"{type(optimizer).__name__} has no learning rate for each group of parameters; remove "
                "`input_learning_rate` and `output_learning_rate`, or set another optimizer"
            )
        split = []
        for role, rate in rates.items():
            own = [each for each in group["params"] if id(each) in held[role]]
            if own:
                found.update(map(id, own))
                group["params"] = [each for each in group["params"] if id(each) not in held[role]]
                split.append(_alike(group, own, rate) | {_MARK: f"{role} {rate:g}"})
        groups += [group] if group["params"] else []
        groups += split
    for role in rates:
        if not found & held[role]:
            raise EEVEError(
                f"{type(optimizer).__name__} holds nothing of the {role.replace('_', ' ')}, which have a learning rate of "
                "their own; set another optimizer, or remove that rate"
            )
    optimizer.param_groups[:] = groups
    given = marks(optimizer)
    optimizer.register_load_state_dict_post_hook(lambda loaded: check_marks(loaded, given))


def marks(optimizer: torch.optim.Optimizer) -> list[str | None]:
    """By group, whose rate `give_rates` gave it, and which; None where it has the others'."""
    return [group.get(_MARK) for group in optimizer.param_groups]


def check_marks(optimizer: torch.optim.Optimizer, given: list[str | None]) -> None:
    """Raise EEVEError if a state that was loaded is of groups with other rates than those with the marks `given`.

    Groups are known by their place, so one matrix would go on with the other's momenta, and at the rate that was saved.
    """
    loaded = marks(optimizer)
    if loaded != given:
        saved, now = (", ".join(filter(None, each)) or "none" for each in (loaded, given))
        raise EEVEError(
            f"the checkpoint's learning rates of one embedding matrix are others ({saved}) than the stage's ({now}); put "
            "`input_learning_rate` and `output_learning_rate` back as they were, or start the stage without the checkpoint"
        )


def _alike(group: Mapping[str, Any], parameters: list[torch.nn.Parameter], rate: float) -> dict[str, Any]:
    """A group of `parameters` that differs from `group` by its rate only."""
    new = {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
    before = float(new["lr"])
    new["lr"] = _as(new["lr"], rate)
    for name in _ALSO_RATES:
        if new.get(name) is not None and before:
            new[name] = _as(new[name], float(new[name]) * rate / before)
    return {"params": parameters, **new}


def _as(before: float | torch.Tensor, rate: float) -> float | torch.Tensor:
    """`rate` as a number or, where the optimiser keeps its rates so, as a tensor."""
    return torch.full_like(before, rate) if isinstance(before, torch.Tensor) else rate
