"""What a GPU can hold and do, by name. Source: NVIDIA's data sheets (dense bf16, no sparsity)."""

from __future__ import annotations

from dataclasses import dataclass

from eeve_axolotl.errors import EEVEError

GB = 10**9


@dataclass(frozen=True)
class GPU:
    """`memory` in bytes as on the data sheet, `flops` a second in dense bf16."""

    name: str
    memory: int
    flops: float


GPUS = {
    name: GPU(name, gigabytes * GB, teraflops * 1e12)
    for name, gigabytes, teraflops in (
        ("a100-40gb", 40, 312),
        ("a100-80gb", 80, 312),
        ("l40s-48gb", 48, 362),
        ("h100-80gb", 80, 989.4),  # SXM
        ("h100-pcie-80gb", 80, 756),
        ("h200-141gb", 141, 989.4),
    )
}


def find(name: str) -> GPU:
    """The GPU of this name, in any case. Raises EEVEError, naming those known, for another."""
    try:
        return GPUS[name.lower()]
    except KeyError:
        raise EEVEError(f"the GPU {name} is not known; give one of {', '.join(GPUS)}") from None
