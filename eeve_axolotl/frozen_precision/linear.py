"""A linear module that computes in FP8 and keeps its own weight for everything else.

`weight` stays the module's Parameter with the bits that were loaded, so fingerprints, `state_dict()` and whoever saves
find what they always find. It lies in the machine's memory; the device has its copy in 8 bits alone. That copy is
neither a parameter nor a buffer: nothing saves it, broadcasts it, casts it or steps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from eeve_axolotl.frozen_precision.float8 import Float8Matrix

HOST = torch.device("cpu")


class Float8Linear(nn.Linear):
    """A frozen linear module whose products are made in FP8; `hold` makes one of an nn.Linear, `release` undoes it."""

    matrix: Float8Matrix

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), in the dtype that nn.Linear would give."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        output = _Product.apply(input, self.matrix, dtype)
        return output if self.bias is None else output + self.bias.to(dtype)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Float8Linear:
        """`.to()` moves the copy; the module's own weight stays as and where it is."""
        weight = self._parameters.pop("weight")
        try:
            super()._apply(fn, recurse)
        finally:
            # First again, as it was: the order of a state dict.
            self._parameters = {"weight": weight, **self._parameters}
        self.matrix = self.matrix.to(fn(self.matrix.scale[:0]).device)
        return self

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Whatever weight is loaded is the one that is computed with."""
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "weight" in state_dict:
            self.matrix = Float8Matrix.of(self.weight.to(self.matrix.values.device))


def hold(module: nn.Linear) -> Float8Linear:
    """Make `module`, an nn.Linear that is frozen, compute in FP8, in place; its weight goes to the machine's memory."""
    matrix = Float8Matrix.of(module.weight)
    module.weight.data = module.weight.data.to(HOST)
    module.__class__ = Float8Linear
    assert isinstance(module, Float8Linear)
    module.matrix = matrix
    return module


def release(module: Float8Linear) -> None:
    """Make `module` an nn.Linear again, in place, its weight on the device where it computes."""
    device = module.matrix.values.device
    del module.matrix
    module.__class__ = nn.Linear  # type: ignore[assignment]
    module.weight.data = module.weight.data.to(device)


class _Product(torch.autograd.Function):
    """hidden @ matrix.t(); its gradient is that of the hidden states."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, matrix: Float8Matrix, dtype: torch.dtype) -> torch.Tensor:
        # On `ctx`, not saved: it never changes, and who moves saved tensors elsewhere must not move weights.
        ctx.matrix, ctx.dtype = matrix, hidden.dtype
        output = matrix.forward(hidden.reshape(-1, hidden.shape[-1]))
        return output.view(*hidden.shape[:-1], output.shape[-1]).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        below = ctx.matrix.backward(gradient.reshape(-1, gradient.shape[-1]))
        return below.view(*gradient.shape[:-1], below.shape[-1]).to(ctx.dtype), None, None
