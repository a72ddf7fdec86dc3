"""(c) Frozen layers in FP8 (`eeve: {frozen_precision: fp8}`) beside bf16: SOLAR's products, and stages 1, 3 and 5 whole.

Of each linear module of a layer: the product alone in bf16, and in FP8 as the package makes it, which quantises the
activations by row; the matrix was quantised before, as it is once a stage. A stage is trained both ways in turn,
on models with the same weights. A rehearsal emulates FP8, which its lines say, and whose seconds mean nothing.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable

import torch

from benchmarks import stages
from benchmarks.freezing_methods import ours_whole, ratio, time_in_turn
from benchmarks.gpu.battery import Battery, CannotRunError
from benchmarks.gpu.stages import arguments
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.frozen_precision import hold_in_fp8
from eeve_axolotl.frozen_precision.device import check_device, check_products
from eeve_axolotl.frozen_precision.float8 import Float8Matrix

FP8, BF16 = "fp8", "bf16"
STAGES = (1, 3, 5)


def run(battery: Battery) -> None:
    shape, tokens = battery.sizes.shape, 2 * battery.sizes.length
    wide, hidden, narrow = shape.hidden * 7 // 2, shape.hidden, shape.hidden // 4
    linears = {
        "q_proj and o_proj": (hidden, hidden),
        "k_proj and v_proj": (narrow, hidden),
        "gate_proj and up_proj": (wide, hidden),
        "down_proj": (hidden, wide),
    }
    for name, (out, read) in linears.items():
        for direction in ("forward", "backward"):
            battery.figure(
                f"{name}, {direction}",
                lambda out=out, read=read, direction=direction: product(
                    battery, tokens, out, read, direction
                ),
                tokens=tokens,
            )
    for number in STAGES:
        for checkpointing in (False, True):
            found = battery.figure(
                f"stage {number}",
                lambda number=number, checkpointing=checkpointing: stage(battery, number, checkpointing),
                checkpointing=checkpointing,
            )
            if found is None or found.get("fits", True):
                break  # with checkpointing only where it does not fit without


def needs_fp8(battery: Battery) -> None:
    """Raise CannotRunError on a card that does not multiply FP8, or not rightly."""
    try:
        check_device(torch.device(battery.sizes.device))
        check_products(torch.device(battery.sizes.device))
    except EEVEError as why:
        raise CannotRunError(str(why)) from None


def product(battery: Battery, tokens: int, out: int, read: int, direction: str) -> dict:
    """One product in bf16 and FP8: seconds of each, their ratio, and the relative error."""
    needs_fp8(battery)
    device = battery.sizes.device
    generator = torch.Generator(device).manual_seed(0)
    weight = torch.randn(out, read, device=device, dtype=torch.bfloat16, generator=generator) / read**0.5
    width = read if direction == "forward" else out
    left = torch.randn(tokens, width, device=device, dtype=torch.bfloat16, generator=generator)
    matrix = Float8Matrix.of(weight)
    right = weight.t() if direction == "forward" else weight
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        BF16: lambda left: left @ right,
        FP8: matrix.forward if direction == "forward" else matrix.backward,
    }
    exact, rounded = (ways[name](left).float() for name in (BF16, FP8))
    seconds = time_in_turn(ways, [left] * (4 * battery.sizes.turns), battery.clock)
    return {
        "emulated": device == "cpu",
        "seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "speedup": ratio(seconds, BF16, FP8)[1],
        "relative_error": ((exact - rounded).norm() / exact.norm()).item(),
    }


def stage(battery: Battery, number: int, checkpointing: bool) -> dict:
    """A stage with its frozen layers in the model's own precision and in FP8: tokens/s, peak bytes, and the first loss."""
    needs_fp8(battery)
    args, shape = arguments(battery), battery.sizes.shape
    args.checkpointing = checkpointing
    plain = stages.build(shape, args)
    # All of it, not the embeddings alone: the copy's layers leave the card.
    models = {BF16: plain, FP8: copy.deepcopy(plain)}
    runs = {
        name: stages.prepare(each, number, ours_whole, shape, checkpointing) for name, each in models.items()
    }
    trunk = hold_in_fp8(models[FP8])
    data = shape.batches(args.turns + 1, args.batch, args.length, args.device)
    with torch.no_grad():
        losses = {name: float(each(input_ids=data[0], labels=data[0]).loss) for name, each in models.items()}
    seconds = time_in_turn({name: each.step for name, each in runs.items()}, data, args.clock)
    peaks = {name: stages.measured_peak(each, data[0], args.device) for name, each in runs.items()}
    peaks[FP8] += trunk.held_bytes - trunk.own_bytes  # it counts each parameter, wherever it lies
    return {
        "emulated": trunk.is_emulated,
        "tokens_per_second": {
            name: args.batch * args.length / statistics.median(each) for name, each in seconds.items()
        },
        "speedup": ratio(seconds, BF16, FP8),
        "peak_bytes": peaks,
        "planned_bytes": {name: stages.planned(shape, number, args, name == FP8)[0] for name in models},
        "first_loss": losses,
        "parameters_in_fp8": trunk.parameters,
    }
