"""What a project trains on, and the batches that fit there, by the planner."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.planner import gpus
from eeve_axolotl.planner.estimate import Options, StageEstimate, check_fits, estimate
from eeve_axolotl.planner.gpus import GPU
from eeve_axolotl.project.wanted import Wanted

LARGEST = 32  # sequences at a time: more makes a step no faster
LARGEST_ON_CPU = 8


@dataclass(frozen=True)
class Machine:
    """One GPU or several alike; without any, this machine's CPU."""

    gpu: GPU
    gpus: int

    @property
    def is_cpu(self) -> bool:
        """Whether it has no GPU."""
        return self.gpus == 0

    @property
    def processes(self) -> int:
        """Of a training."""
        return max(1, self.gpus)

    def __str__(self) -> str:
        return "a CPU" if self.is_cpu else f"{self.gpus} x {self.gpu.name}"


def machine(wanted: Wanted) -> Machine:
    """The machine that was asked for, or this one. Raises EEVEError where neither says what trains."""
    if wanted.gpus == 0:
        return Machine(GPU("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2, math.nan), 0)
    if wanted.gpu:
        gpu = gpus.find(wanted.gpu)
        memory = gpu.memory if wanted.memory is None else int(wanted.memory * gpus.GB)
        return Machine(GPU(gpu.name, memory, gpu.flops), wanted.gpus or 1)
    if wanted.memory is not None:
        return Machine(
            GPU(f"GPU of {wanted.memory:g} GB", int(wanted.memory * gpus.GB), math.nan), wanted.gpus or 1
        )
    import torch

    if not torch.cuda.is_available():
        raise EEVEError(
            "this machine has no GPU; say what will train: --gpus 8 --gpu h100-80gb, or --gpus 8 --memory 80 (GB of one), "
            "or --gpus 0 for a CPU"
        )
    here = torch.cuda.get_device_properties(0)
    return Machine(GPU(here.name, here.total_memory, math.nan), wanted.gpus or torch.cuda.device_count())


def fit(
    yamls: Mapping[str, str],
    runs: list[str],
    base: str,
    machine: Machine,
    new_tokens: int,
    *,
    untied: bool = False,
) -> list[StageEstimate]:
    """What the planner says of the stages of `runs`, which are among the project's YAMLs.

    Args:
        yamls: by name.
        base: for the planner (see `Base.known_by`).
        untied: whether the base gets a second embedding matrix before the first of them.
    """
    options = Options(
        gpu=machine.gpu,
        gpus=machine.processes,
        new_tokens=new_tokens,
        base_model=os.path.abspath(base) if os.path.isdir(base) else base,
        untied=untied,
    )
    with TemporaryDirectory() as directory, contextlib.chdir(directory):
        for name, text in yamls.items():
            Path(name).write_text(text, encoding="utf-8")
        return [each for run in runs for each in estimate(run, options)]


def check(estimates: list[StageEstimate], machine: Machine) -> None:
    """Raise EEVEError for a stage of which not even one sequence fits."""
    check_fits(estimates, Options(gpu=machine.gpu, gpus=machine.processes))


def micro_batch(estimate: StageEstimate, machine: Machine, sequences: int) -> int:
    """Sequences at a time that fit and divide a step's `sequences` of one process."""
    most = min(estimate.largest_micro_batch, LARGEST_ON_CPU if machine.is_cpu else LARGEST)
    return max(
        (power for power in (1, 2, 4, 8, 16, 32) if power <= most and sequences % power == 0), default=1
    )
