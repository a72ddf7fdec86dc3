"""What a GPU can hold and do, by name. Source: NVIDIA's and AMD's data sheets and white papers (dense bf16, no sparsity,
sums in 32 bits)."""

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
        ("rtx-3090-24gb", 24, 71),
        ("rtx-4090-24gb", 24, 165.2),
        ("l4-24gb", 24, 121),
        ("a10-24gb", 24, 125),
        ("a100-40gb", 40, 312),
        ("a100-80gb", 80, 312),
        ("l40s-48gb", 48, 362),
        ("h100-80gb", 80, 989.4),  # SXM
        ("h100-pcie-80gb", 80, 756),
        ("h200-141gb", 141, 989.4),
        ("b200-180gb", 180, 2250),  # an eighth of an HGX or DGX B200
        ("mi300x-192gb", 192, 1307.4),
    )
}


def find(name: str) -> GPU:
    """The GPU of this name, in any case. Raises EEVEError, naming those known, for another."""
    wanted = name.lower().replace(" ", "-").replace("_", "-")
    if wanted in GPUS:
        return GPUS[wanted]
    found = [each for each in GPUS if each.startswith(f"{wanted}-")]
    if len(found) == 1:  # its memory need not be named where it comes with one only
        return GPUS[found[0]]
    raise EEVEError(f"the GPU {name} is not known; give one of {', '.join(found or GPUS)}")
