"""A stage's own settings on the trainer while it trains, and what an optimiser step of each stage is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments

from eeve_axolotl.args import EEVESettings, ScheduledStage
from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.logs import logger

LOG = logger("trainer")


def optimizer_steps(
    args: TrainingArguments, sequence_len: int, settings: EEVESettings
) -> list[OptimizerStep]:
    """What an optimiser step of each stage of a run is.

    Args:
        args: what Axolotl made of the config for the trainer: epochs are steps in it.
        settings: the run's `eeve:` block.

    Raises EEVEError for a global batch that a stage's micro batch does not divide.
    """
    cfg = {
        "sequence_len": sequence_len,
        "micro_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "max_steps": args.max_steps,
    }
    return [
        OptimizerStep.of(cfg, settings, stage, processes=args.world_size) for stage in settings.schedule()
    ]


@contextmanager
def stage_arguments(
    trainer: Trainer,
    stage: ScheduledStage,
    step: OptimizerStep,
    callbacks: Sequence[TrainerCallback],
    **others: Any,
) -> Iterator[None]:
    """A stage's own settings and callbacks on `trainer`, taken back afterwards.

    Args:
        step: what an optimiser step of the stage is, and how many it has.
        others: further training arguments to set meanwhile.
    """
    own = {**others, **_own(stage, step)}
    if stage.max_tokens is not None:
        LOG.info("max_tokens: %s tokens are %d steps", f"{stage.max_tokens:,}", own["max_steps"])
    if not stage.resolved().backward_through_layers:
        own["gradient_checkpointing"] = False
        disable_checkpointing(trainer)
    before = {name: getattr(trainer.args, name) for name in own}
    _set(trainer, own)
    for callback in callbacks:
        trainer.add_callback(callback)
    try:
        yield
    finally:
        _set(trainer, before)
        for callback in callbacks:
            trainer.remove_callback(callback)


def disable_checkpointing(trainer: Trainer) -> None:
    """Switch gradient checkpointing off; training switches it on again where the arguments ask for it."""
    model: Any = trainer.model  # transformers' own, or PEFT's wrapper, which passes it on
    model.gradient_checkpointing_disable()


def _own(stage: ScheduledStage, step: OptimizerStep) -> dict[str, Any]:
    """What a stage sets for itself, as the trainer calls it."""
    own = {
        "max_steps": step.max_steps,
        "learning_rate": stage.learning_rate,
        "warmup_steps": stage.warmup_steps,
        "per_device_train_batch_size": stage.micro_batch_size,
    }
    if stage.micro_batch_size or stage.gradient_accumulation_steps:
        own["gradient_accumulation_steps"] = step.accumulation
    return {name: value for name, value in own.items() if value is not None}


def _set(trainer: Trainer, args: dict[str, Any]) -> None:
    """Set `args` on the trainer, and what it has copied from them."""
    for name, value in args.items():
        setattr(trainer.args, name, value)
    trainer.accelerator.gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer._train_batch_size = trainer.args.train_batch_size
    trainer.state.train_batch_size = trainer.args.train_batch_size  # Axolotl packs batches of this size
