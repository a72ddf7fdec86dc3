"""What an optimiser step of a stage is: how many sequences and tokens, over all processes, and how many steps at most.

Worked out once here, from a config; the trainer, the planner, the corpus report and the chain ask. Knows config keys only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eeve_axolotl.errors import EEVEError

if TYPE_CHECKING:  # benchmarks/gpu plans where pydantic is not installed
    from eeve_axolotl.args import EEVESettings, ScheduledStage

SEQUENCE_LEN = 512  # Axolotl's own default of `sequence_len`

# Keys that would themselves change how many sequences a step has.
_OTHERS_WHO_DECIDE = {
    "batch_size": "it is Axolotl's key for the batch of one GPU",
    "auto_find_batch_size": "it changes the micro batch while training",
}


@dataclass(frozen=True)
class OptimizerStep:
    """One optimiser step of a stage: `processes` x `accumulation` micro batches of `micro_batch` sequences."""

    sequence_len: int
    micro_batch: int
    accumulation: int
    processes: int
    max_steps: int | None = None
    """Steps of the stage at most, by `max_steps` and `max_tokens`; None where neither is set (then epochs end it)."""

    @property
    def sequences(self) -> int:
        """Sequences of a step, over all processes."""
        return self.micro_batch * self.accumulation * self.processes

    @property
    def tokens(self) -> int:
        """Tokens of a step, over all processes, padding counted."""
        return self.sequences * self.sequence_len

    @property
    def max_tokens(self) -> int | None:
        """Tokens of the stage at most, padding counted."""
        return None if self.max_steps is None else self.max_steps * self.tokens

    @classmethod
    def of(
        cls,
        cfg: Mapping[str, Any],
        settings: EEVESettings,
        stage: ScheduledStage,
        *,
        processes: int,
        global_batch: int | None = None,
    ) -> OptimizerStep:
        """The step of one `stage` of the run that `cfg` describes.

        Args:
            cfg: an Axolotl config, as its YAML has it.
            settings: its `eeve:` block. What the stage leaves out is as `cfg` says, or as Axolotl's defaults.
            processes: how many train (see `processes`).
            global_batch: sequences of a step instead of `eeve.global_batch_size`.

        Raises EEVEError for a global batch that the processes do not divide.
        """
        micro_batch = stage.micro_batch_size or cfg.get("micro_batch_size") or 1
        whole = global_batch or settings.global_batch_size
        if whole:
            accumulation = accumulation_steps(whole, micro_batch, processes)
        else:
            accumulation = stage.gradient_accumulation_steps or cfg.get("gradient_accumulation_steps") or 1
        step = cls(int(cfg.get("sequence_len") or SEQUENCE_LEN), micro_batch, accumulation, processes)
        by_steps = int(stage.max_steps or cfg.get("max_steps") or 0)
        by_tokens = steps_for(stage.max_tokens, step.tokens) if stage.max_tokens else 0
        limits = [limit for limit in (by_steps, by_tokens) if limit > 0]  # Axolotl's -1 is no limit
        return replace(step, max_steps=min(limits)) if limits else step


def steps_for(max_tokens: int, tokens_per_step: int) -> int:
    """Steps that a budget of `max_tokens` allows, the last one in full; at least one."""
    return max(1, math.ceil(max_tokens / tokens_per_step))


def processes(cfg: Mapping[str, Any]) -> int:
    """How many processes train: Ray's workers, or as the launcher says (torchrun and Accelerate set WORLD_SIZE)."""
    if cfg.get("use_ray"):
        return cfg.get("ray_num_workers") or 1  # the driver, which reads the config first, is not one of them
    return int(os.environ.get("WORLD_SIZE", "1"))


def accumulation_steps(global_batch: int, micro_batch: int, gpus: int) -> int:
    """Micro batches of a GPU in a step of `global_batch` sequences.

    Raises EEVEError where they do not divide.
    """
    steps, rest = divmod(global_batch, micro_batch * gpus)
    if not rest:
        return steps
    share, rest = divmod(global_batch, gpus)
    if rest:
        change = f"take a number of GPUs that divides {global_batch}, or a global batch that {gpus} divides"
    else:
        fits = max(size for size in range(1, micro_batch + 1) if share % size == 0)
        change = f"set micro_batch_size: {fits}, or another divisor of {share}"
    raise EEVEError(
        f"a global batch of {global_batch} does not divide into {gpus} GPUs x micro_batch_size {micro_batch}; {change}"
    )


def implied_accumulation(cfg: Mapping[str, Any], global_batch: int | None) -> int | None:
    """The `gradient_accumulation_steps` that `eeve.global_batch_size` asks for in this run, None if it is not set.

    Raises EEVEError where it does not divide, or where another key of `cfg` says something else.
    """
    if global_batch is None:
        return None
    for key, why in _OTHERS_WHO_DECIDE.items():
        if cfg.get(key):
            raise EEVEError(
                f"`{key}` cannot be used together with `eeve.global_batch_size` ({why}); remove it"
            )
    steps = accumulation_steps(global_batch, cfg.get("micro_batch_size") or 1, processes(cfg))
    given = cfg.get("gradient_accumulation_steps")
    if given and given != steps:  # a Ray worker gets the config with what its driver worked out
        raise EEVEError(
            f"`gradient_accumulation_steps: {given}` contradicts `eeve.global_batch_size: {global_batch}`, from which "
            f"it follows for any number of GPUs ({steps} here); remove it"
        )
    return steps
