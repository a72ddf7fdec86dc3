"""(c) Frozen layers in FP8: the products of SOLAR's layers beside bf16's. A stage cannot use them yet.

Of each linear of a layer: the product alone in bf16, and in FP8 with what a step must do, which is to scale and cast
the activations by row. The weights are cast once, as they would be for a stage. The ratio bounds what it can give.
"""

from __future__ import annotations

import statistics

import torch

from benchmarks.freezing_methods import time_in_turn
from benchmarks.gpu.battery import Battery, CannotRunError

FP8 = torch.float8_e4m3fn


def run(battery: Battery) -> None:
    shape, tokens = battery.sizes.shape, 2 * battery.sizes.length
    wide, hidden, narrow = shape.hidden * 7 // 2, shape.hidden, shape.hidden // 4
    linears = {
        "q_proj and o_proj": (hidden, hidden),
        "k_proj and v_proj": (narrow, hidden),
        "gate_proj and up_proj": (wide, hidden),
        "down_proj": (hidden, wide),
    }
    for name, (rows, columns) in linears.items():
        for direction, (out, read) in {"forward": (rows, columns), "backward": (columns, rows)}.items():
            battery.figure(
                f"{name}, {direction}",
                lambda out=out, read=read: product(battery, tokens, out, read),
                tokens=tokens,
            )

    def whole() -> dict:
        raise CannotRunError(
            "the package has no frozen layers in FP8; these products bound what they would give"
        )

    battery.figure("stages 1, 3 and 5 with frozen layers in FP8", whole)


def product(battery: Battery, tokens: int, out: int, read: int) -> dict:
    """One product in bf16 and FP8: seconds of each, their ratio, and the relative error."""
    device = battery.sizes.device
    generator = torch.Generator(device).manual_seed(0)
    left = torch.randn(tokens, read, device=device, dtype=torch.bfloat16, generator=generator)
    weight = torch.randn(out, read, device=device, dtype=torch.bfloat16, generator=generator) / read**0.5
    small, of_weight = by_row(weight)

    def in_fp8(left: torch.Tensor) -> torch.Tensor:
        cast, scale = by_row(left)
        return torch._scaled_mm(
            cast, small.t(), scale_a=scale, scale_b=of_weight.t(), out_dtype=torch.bfloat16
        )

    def in_bf16(left: torch.Tensor) -> torch.Tensor:
        return left @ weight.t()

    try:
        exact, rounded = in_bf16(left).float(), in_fp8(left).float()
    except (RuntimeError, NotImplementedError) as error:
        why = str(error).splitlines()[0][:160]
        raise CannotRunError(f"torch._scaled_mm does not do this product here: {why}") from None
    ways = {"bf16": in_bf16, "fp8": in_fp8}
    if not battery.rehearsal:
        ways["fp8, compiled"] = torch.compile(in_fp8)
    seconds = time_in_turn(ways, [left] * (4 * battery.sizes.turns), battery.clock)
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "seconds": middle,
        "speedup": middle["bf16"] / min(value for name, value in middle.items() if name != "bf16"),
        "relative_error": ((exact - rounded).norm() / exact.norm()).item(),
    }


def by_row(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values in FP8, and the scale of each row by which they are to be multiplied."""
    scale = values.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / torch.finfo(FP8).max
    return (values.float() / scale).to(FP8), scale
