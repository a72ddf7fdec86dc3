"""A frozen matrix in FP8, and the two products that a stage makes of it.

Values are float8_e4m3fn, with one scale a row. The matrix is quantised once. A product quantises its other operand,
the activations or their gradient, as it comes: row by row, one scale a token.

The matrix's scales belong to its rows, which the forward pass puts out and the backward pass sums over. There they
are first multiplied into the gradient. So both passes read the same 8 bits, and there is no second copy of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from eeve_axolotl.logs import logger

LOG = logger("frozen_precision")

FP8 = torch.float8_e4m3fn
MULTIPLE = 16  # of both sides of a matrix: torch._scaled_mm multiplies no other in FP8
OUT = torch.bfloat16  # what it gives for scales by row

_LARGEST = torch.finfo(FP8).max
# Under the largest value of any row that is not zero: gradients of a token, times a scale of the matrix, are tiny.
_LEAST = 1e-30
_ROWS_AT_ONCE = 1024  # of a weight: 32 bits of the whole would not fit beside a model that fills its card


def fits(rows: int, columns: int) -> bool:
    """Whether a matrix of this shape can be multiplied in FP8."""
    return rows % MULTIPLE == 0 and columns % MULTIPLE == 0


def held_bytes(rows: int, columns: int) -> int:
    """Bytes of a matrix of this shape in FP8: its values, and a scale of 4 bytes for each row."""
    return rows * (columns + 4)


def quantise(values: torch.Tensor, factor: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Values in FP8, and the scales by which they are to be multiplied.

    Args:
        values: (rows, columns), of any floating-point dtype.
        factor: (1, columns), by which the values are multiplied first.

    Returns:
        float8_e4m3fn (rows, columns), and float32 (rows, 1): the largest absolute value of each row is the
        largest that FP8 has.
    """
    values = values.float() if factor is None else values.float() * factor
    scale = values.abs().amax(1, keepdim=True).clamp(min=_LEAST) / _LARGEST
    return (values / scale).to(FP8), scale


@dataclass(frozen=True)
class Float8Matrix:
    """A matrix in FP8.

    Args:
        values: float8_e4m3fn (rows, columns).
        scale: float32 (rows, 1).
    """

    values: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor) -> Float8Matrix:
        """A weight, (out, in), quantised on its device, some rows at a time."""
        parts = [quantise(rows) for rows in weight.detach().split(_ROWS_AT_ONCE)]
        values = torch.cat([values.view(torch.uint8) for values, _ in parts]).view(FP8)
        return cls(values, torch.cat([scale for _, scale in parts]))

    def to(self, device: torch.device) -> Float8Matrix:
        """The same bits on another device."""
        return Float8Matrix(self.values.to(device), self.scale.to(device))

    @property
    def nbytes(self) -> int:
        """Bytes of the values and the scales."""
        return self.values.nbytes + self.scale.nbytes

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The product hidden @ matrix.t(): (tokens, columns) to bfloat16 (tokens, rows)."""
        small, scale = _quantiser(hidden.device)(hidden, None)
        return _product(hidden.device)(small, scale, self.values.t(), self.scale.t())

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """The product gradient @ matrix: (tokens, rows) to bfloat16 (tokens, columns)."""
        small, scale = _quantiser(gradient.device)(gradient, self.scale.t())
        # The card reads its second operand by columns: the same 8 bits, laid out the other way for the moment.
        by_columns = self.values.t().contiguous().t()
        ones = torch.ones_like(self.scale[:1]).expand(1, by_columns.shape[1]).contiguous()
        return _product(gradient.device)(small, scale, by_columns, ones)


def on_the_card(
    left: torch.Tensor, of_left: torch.Tensor, right: torch.Tensor, of_right: torch.Tensor
) -> torch.Tensor:
    """(left x of_left) @ (right x of_right) in FP8, by the kernel that a card has for it.

    Args:
        left: float8_e4m3fn (m, k), row-major; of_left: float32 (m, 1).
        right: float8_e4m3fn (k, n), column-major; of_right: float32 (1, n).
    """
    # Scales by row are quick with the fast accumulation only, whose error is far below that of the 8 bits.
    return torch._scaled_mm(
        left, right, scale_a=of_left, scale_b=of_right.contiguous(), out_dtype=OUT, use_fast_accum=True
    )


def emulated(
    left: torch.Tensor, of_left: torch.Tensor, right: torch.Tensor, of_right: torch.Tensor
) -> torch.Tensor:
    """What `on_the_card` gives, for any device: the same 8 bits, multiplied in 32."""
    with torch.autocast(left.device.type, enabled=False):
        return ((left.float() * of_left) @ (right.float() * of_right)).to(OUT)


def _product(device: torch.device) -> Callable[..., torch.Tensor]:
    return on_the_card if device.type == "cuda" else emulated


def _quantiser(device: torch.device) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return _fused_quantise(device.type) if device.type == "cuda" else quantise


@functools.cache
def _fused_quantise(kind: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """`quantise` of activations as one kernel, which reads them once; as it stands where none can be compiled.

    Args:
        kind: the type of device that it is for.
    """
    fused: Callable[..., tuple[torch.Tensor, torch.Tensor]] = torch.compile(quantise, dynamic=True)
    try:
        fused(torch.ones(MULTIPLE, 2 * MULTIPLE, dtype=OUT, device=kind), None)
    except Exception as error:  # no Triton, no C compiler: torch raises what it likes
        why = " ".join(str(error).split())[:200]
        LOG.warning(
            "frozen_precision: activations are quantised without a fused kernel, which is slow (%s)", why
        )
        return quantise
    return fused
