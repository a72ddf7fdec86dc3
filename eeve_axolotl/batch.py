"""How many micro batches make a step, so that a step is the same on any number of GPUs. Knows config keys only."""

from __future__ import annotations

import os
from collections.abc import Mapping

from eeve_axolotl.errors import EEVEError

# Keys that would themselves change how many sequences a step has.
_OTHERS_WHO_DECIDE = {
    "batch_size": "it is Axolotl's key for the batch of one GPU",
    "auto_find_batch_size": "it changes the micro batch while training",
}


def processes(cfg: Mapping) -> int:
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


def implied_accumulation(cfg: Mapping, global_batch: int | None) -> int | None:
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
