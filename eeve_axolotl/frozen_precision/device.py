"""Where frozen layers can be read in FP8: cards that multiply it, and CPUs, by emulation, for tests."""

from __future__ import annotations

import torch

from eeve_axolotl.errors import EEVEError, UnknownError
from eeve_axolotl.frozen_precision.float8 import Float8Matrix

CAPABILITY = (8, 9)  # Ada; Hopper is 9.0

_INSTEAD = "remove `frozen_precision`"
_NOISE = 0.08  # of a product in FP8, beside the same in 32 bits: about 0.04


def check_cards() -> None:
    """Raise EEVEError where a card of this machine cannot, UnknownError where the machine has none."""
    if not torch.cuda.is_available():
        raise UnknownError(
            "no GPU is seen here, so it is not known whether the one that will train has FP8 (compute capability "
            f"{'.'.join(map(str, CAPABILITY))} or newer); on a CPU it is emulated, for tests"
        )
    for number in range(torch.cuda.device_count()):
        _check_card(number)


def check_device(device: torch.device) -> None:
    """Raise EEVEError for a device on which frozen layers cannot be read in FP8."""
    if device.type == "cuda":
        _check_card(device.index or 0)
    elif device.type != "cpu":
        raise EEVEError(
            f"`eeve.frozen_precision: fp8` needs an NVIDIA GPU with FP8, and the model is on {device}; {_INSTEAD}"
        )


def check_products(device: torch.device) -> None:
    """Raise EEVEError unless both products of a small matrix, made on `device`, are those of 32 bits but for the noise."""
    generator = torch.Generator().manual_seed(0)
    weight, hidden, gradient = (
        torch.randn(*shape, generator=generator).to(device) for shape in ((32, 64), (16, 64), (16, 32))
    )
    matrix = Float8Matrix.of(weight)
    try:
        found = (matrix.forward(hidden), matrix.backward(gradient))
    except (RuntimeError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:200]
        raise EEVEError(
            f"`eeve.frozen_precision: fp8` does not run on {device}: torch._scaled_mm says {why}; {_INSTEAD}"
        ) from None
    for product, exact in zip(found, (hidden @ weight.t(), gradient @ weight), strict=True):
        off = float((product.float() - exact).norm() / exact.norm())
        if not off < _NOISE:
            raise EEVEError(
                f"`eeve.frozen_precision: fp8` gives products on {device} that are wrong by {off:.0%}, more than 8 bits "
                f"explain; {_INSTEAD}"
            )


def _check_card(number: int) -> None:
    if torch.version.hip:
        raise EEVEError(
            f"`eeve.frozen_precision: fp8` is not proven on AMD's GPUs, whose FP8 has other values; {_INSTEAD}"
        )
    found = torch.cuda.get_device_capability(number)
    if found < CAPABILITY:
        raise EEVEError(
            f"`eeve.frozen_precision: fp8` needs a GPU with FP8 (compute capability 8.9 or newer, as L40S and H100 "
            f"have), and {torch.cuda.get_device_name(number)} has {found[0]}.{found[1]}; {_INSTEAD}, or use such a GPU"
        )
