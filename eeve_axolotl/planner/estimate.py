"""`axolotl eeve plan`: from recipes to memory, time and cost, and to what must change where a stage does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eeve_axolotl.args import ScheduledStage
from eeve_axolotl.corpus.manifest import corpus_tokens
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.planner.flops import flops_per_token, hours
from eeve_axolotl.planner.gpus import GPU
from eeve_axolotl.planner.memory import HeadLoss, Memory, Trained, Training, memory, trained
from eeve_axolotl.planner.recipes import Recipe
from eeve_axolotl.planner.shapes import Saved, Shape, saved_bytes
from eeve_axolotl.records import CONFIG
from eeve_axolotl.settings import read_mapping, read_yaml
from eeve_axolotl.stages import Stage

RESERVED = 0.05
"""Share of a GPU that the CUDA context, the libraries' workspaces and fragmentation take: assumed."""

UTILISATION = 0.4
"""Share of the GPU's peak that the counted operations reach: assumed, not measured here."""


@dataclass(frozen=True)
class StageEstimate:
    """One stage of one recipe on the chosen GPUs."""

    recipe: str
    stage: Stage
    training: Training
    trained: Trained
    memory: Memory
    limit: float  # bytes of one GPU that may be filled
    largest_micro_batch: int  # that fits, 0 if none does
    steps: int
    reads_again: bool  # from the corpus's beginning, instead of where the stage before stopped
    corpus_tokens: int | None  # where the corpus is one of ours
    flops: float
    hours: float
    cost: float | None

    @property
    def fits(self) -> bool:
        """Whether the peak stays within the GPU."""
        return self.memory.total <= self.limit

    @property
    def tokens(self) -> int:
        """Tokens of the stage, padding counted."""
        return self.steps * self.training.step.tokens

    @property
    def advice(self) -> str:
        """Which key to change where the stage does not fit."""
        if self.largest_micro_batch:
            return f"set micro_batch_size: {self.largest_micro_batch}"
        if self.stage.backward_through_layers and not self.training.checkpointing:
            return "set gradient_checkpointing: true"
        if self.training.head_loss is HeadLoss.PLAIN:
            return "set eeve.head_loss: chunked, with no other loss beside it, or lower sequence_len"
        if self.training.in_fp8:
            return (
                "take a larger GPU, or remove eeve.frozen_precision and shard the model with fsdp_version: 2"
            )
        return "shard the model with fsdp_version: 2 and fsdp_config over more GPUs, or take a larger GPU"


@dataclass(frozen=True)
class Options:
    """What the command line says beside the recipes."""

    gpu: GPU
    gpus: int = 1
    price_per_hour: float | None = None  # of one GPU
    utilisation: float = UTILISATION
    global_batch: int | None = None  # sequences a step; the accumulation follows
    new_tokens: int | None = None  # where no tokenizer says it
    base_model: str | None = None  # whose config.json gives the shape, instead of the recipe's
    untied: bool = False  # whether a step before the recipes gives the model a second matrix
    changes: tuple[str, ...] = ()  # KEY=VALUE, for keys of the YAMLs that were given


def estimate(recipe: str | Path, options: Options) -> list[StageEstimate]:
    """Estimate the stage, or the stages, of one recipe, or of all runs of a pipeline.

    Raises EEVEError for what `Recipe.read` and `Recipe.training` do, and for a stage without an end.
    """
    path = Path(recipe)
    cfg = read_mapping(path, options.changes)
    if is_pipeline(cfg):
        settings = read_yaml(path, PipelineSettings, options.changes)
        of_runs = dataclasses.replace(options, changes=())
        start = settings.start
        if start and not (Path(start.output) / CONFIG).is_file():
            begins = options.base_model or start.base
            of_runs = dataclasses.replace(of_runs, base_model=begins, untied=bool(start.untie))
        return [each for run in settings.runs for each in estimate(run, of_runs)]
    read = Recipe.read(path, options.base_model, options.changes, options.untied)
    return [_estimate_stage(read, each, options) for each in read.settings.schedule()]


def is_pipeline(cfg: Mapping) -> bool:
    """Whether a YAML is a pipeline's, by its keys."""
    return "runs" in cfg and "eeve" not in cfg


def _estimate_stage(recipe: Recipe, scheduled: ScheduledStage, options: Options) -> StageEstimate:
    shape, stage = recipe.shape, recipe.stage(scheduled)
    training = recipe.training(scheduled, options.gpus, options.global_batch, options.new_tokens)
    saved = saved_bytes(shape.config, stage, training.dtype)
    limit = options.gpu.memory * (1 - RESERVED)
    steps = training.step.max_steps
    if steps is None:
        raise EEVEError(
            f"{recipe.path} does not say when stage {stage.name} ends; set max_steps or eeve.max_tokens"
        )
    flops = flops_per_token(shape, stage, training) * training.step.tokens * steps
    time = hours(flops, options.gpus, options.gpu.flops, options.utilisation)
    return StageEstimate(
        recipe=str(recipe.path),
        stage=stage,
        training=training,
        trained=trained(shape, stage, training),
        memory=memory(shape, stage, training, saved),
        limit=limit,
        largest_micro_batch=_largest(shape, stage, training, saved, limit),
        steps=steps,
        reads_again=recipe.settings.text == "again",
        corpus_tokens=corpus_tokens(recipe.cfg),
        flops=flops,
        hours=time,
        cost=None if options.price_per_hour is None else time * options.gpus * options.price_per_hour,
    )


def _largest(shape: Shape, stage: Stage, training: Training, saved: Saved, limit: float) -> int:
    """The largest power of two that fits, up to 1,024; 0 if one sequence does not."""
    largest = 0
    for micro_batch in (2**power for power in range(11)):
        step = dataclasses.replace(training.step, micro_batch=micro_batch)
        if memory(shape, stage, dataclasses.replace(training, step=step), saved).total > limit:
            break
        largest = micro_batch
    return largest


def check_fits(estimates: list[StageEstimate], options: Options) -> None:
    """Raise EEVEError for the first stage that does not fit, with the key to change."""
    for each in estimates:
        if not each.fits:
            raise EEVEError(
                f"stage {each.stage.name} ({each.recipe}) needs {each.memory.total / 1e9:.1f} GB of the "
                f"{each.limit / 1e9:.1f} GB that may be filled on a {options.gpu.name}; {each.advice}"
            )
