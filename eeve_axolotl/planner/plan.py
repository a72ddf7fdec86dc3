"""`axolotl eeve plan`: from recipes to memory, time and cost, and to what must change where a stage does not fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from eeve_axolotl.args import EEVESettings, ScheduledStage
from eeve_axolotl.batch import accumulation_steps, steps_for
from eeve_axolotl.checks import output_of
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.planner.flops import flops_per_token, hours
from eeve_axolotl.planner.gpus import GPU
from eeve_axolotl.planner.memory import Memory, Trained, Training, memory, trained
from eeve_axolotl.planner.shapes import Saved, Shape, read_config, saved_bytes, shape_of
from eeve_axolotl.records import MARK, TOKENIZER_MANIFEST
from eeve_axolotl.run import StageRun
from eeve_axolotl.settings import read_mapping, read_yaml
from eeve_axolotl.sharding import check_sharding
from eeve_axolotl.stages import Layers, Rows, Stage
from eeve_axolotl.vocabulary import manifest_base_size

RESERVED = 0.05
"""Share of a GPU that the CUDA context, the libraries' workspaces and fragmentation take: assumed."""

UTILISATION = 0.4
"""Share of the GPU's peak that the counted operations reach: assumed, not measured here."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of one recipe on the chosen GPUs."""

    recipe: str
    stage: Stage
    training: Training
    trained: Trained
    memory: Memory
    limit: float  # bytes of one GPU that may be filled
    largest_micro_batch: int  # that fits, 0 if none does
    steps: int
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
        each = self.training
        return self.steps * each.tokens * each.accumulation * each.gpus

    @property
    def advice(self) -> str:
        """Which key to change where the stage does not fit."""
        if self.largest_micro_batch:
            return f"set micro_batch_size: {self.largest_micro_batch}"
        if self.stage.backward_through_layers and not self.training.checkpointing:
            return "set gradient_checkpointing: true"
        if not self.training.fused_loss:
            return "fuse the loss with cut_cross_entropy: true (and its plugin), or lower sequence_len"
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


def plan(recipe: str | Path, options: Options) -> list[StagePlan]:
    """Plan the stage, or the stages, of one recipe, or of all runs of a pipeline.

    Raises EEVEError for a recipe that is not one, an unknown base model, a global batch that does not divide,
    a way of sharding that cannot keep rows, or a stage without an end.
    """
    recipe = Path(recipe)
    cfg = read_mapping(recipe)
    if "runs" in cfg and "eeve" not in cfg:
        return [each for run in read_yaml(recipe, PipelineSettings).runs for each in plan(run, options)]
    settings = StageRun.from_config(cfg).settings
    check_sharding(cfg, settings.untie, len(settings.schedule()))
    first, untied = _chain(recipe, cfg)
    config = read_config(options.base_model or first)
    if untied:
        config = {**config, "tie_word_embeddings": False}
    shape = shape_of(config)
    plans = []
    for each in settings.schedule():
        stage = _in_one_matrix(each.resolved()) if shape.tied else each.resolved()
        training = _training(recipe, cfg, settings, each, stage, shape, options)
        plans.append(_plan_stage(recipe, cfg, each, stage, shape, training, options))
    return plans


def _plan_stage(recipe, cfg, each: ScheduledStage, stage, shape, training, options) -> StagePlan:
    saved = saved_bytes(shape.config, stage, training.dtype)
    limit = options.gpu.memory * (1 - RESERVED)
    tokens_per_step = training.tokens * training.accumulation * training.gpus
    steps = [each.max_steps or cfg.get("max_steps")]
    if each.max_tokens:
        steps.append(steps_for(each.max_tokens, tokens_per_step))
    if not any(steps):
        raise EEVEError(
            f"{recipe} does not say when stage {stage.name} ends; set max_steps or eeve.max_tokens"
        )
    steps = min(count for count in steps if count)
    flops = flops_per_token(shape, stage, training) * tokens_per_step * steps
    time = hours(flops, options.gpus, options.gpu.flops, options.utilisation)
    return StagePlan(
        recipe=str(recipe),
        stage=stage,
        training=training,
        trained=trained(shape, stage, training),
        memory=memory(shape, stage, training, saved),
        limit=limit,
        largest_micro_batch=_largest(shape, stage, training, saved, limit),
        steps=steps,
        flops=flops,
        hours=time,
        cost=None if options.price_per_hour is None else time * options.gpus * options.price_per_hour,
    )


def _largest(shape: Shape, stage: Stage, training: Training, saved: Saved, limit: float) -> int:
    """The largest power of two that fits, up to 1,024; 0 if one sequence does not."""
    largest = 0
    for micro_batch in (2**power for power in range(11)):
        if memory(shape, stage, dataclasses.replace(training, micro_batch=micro_batch), saved).total > limit:
            break
        largest = micro_batch
    return largest


def _training(
    recipe, cfg, settings: EEVESettings, each, stage: Stage, shape: Shape, options: Options
) -> Training:
    base, size = _vocabulary(recipe, cfg, settings, shape, options)
    rows = max(size, shape.rows)
    if cfg.get("resize_token_embeddings_to_32x"):
        rows = -(-rows // 32) * 32
    micro_batch = each.micro_batch_size or cfg.get("micro_batch_size") or 1
    accumulation = each.gradient_accumulation_steps or cfg.get("gradient_accumulation_steps") or 1
    global_batch = options.global_batch or settings.global_batch_size
    if global_batch:
        try:
            accumulation = accumulation_steps(global_batch, micro_batch, options.gpus)
        except EEVEError as error:
            raise EEVEError(f"{recipe}: {error}") from None
    dtype = torch.bfloat16 if cfg.get("bf16") else torch.float16 if cfg.get("fp16") else torch.float32
    if stage.internal_layers is Layers.QLORA and not cfg.get("lora_r"):
        raise EEVEError(f"{recipe} trains adapters without saying their rank; set lora_r")
    # Axolotl 0.19 keeps embeddings in 32 bits unless one of these needs them in the run's dtype (loaders/model.py).
    plain = (cfg.get("attn_implementation") or "sdpa") in ("sdpa", "eager") and not cfg.get("adapter")
    plain = plain and not any(cfg.get(key) for key in ("fsdp", "fsdp_config", "cut_cross_entropy"))
    return Training(
        rows=rows,
        base_rows=base,
        micro_batch=micro_batch,
        length=cfg.get("sequence_len") or 2048,
        accumulation=accumulation,
        gpus=options.gpus,
        dtype=dtype,
        embeddings_dtype=torch.float32 if plain else dtype,
        checkpointing=bool(cfg.get("gradient_checkpointing")) and stage.backward_through_layers,
        fused_loss=bool(cfg.get("cut_cross_entropy") or cfg.get("liger_fused_linear_cross_entropy")),
        optimizer=cfg.get("optimizer") or "adamw_torch_fused",
        lora_rank=cfg.get("lora_r") or 0,
        tied=shape.tied,
        shards=_shards(cfg),
    )


def _shards(cfg: Mapping) -> tuple[str, ...]:
    """What a run spreads over its GPUs: all of it with FSDP2 and ZeRO-3, less with ZeRO-2 and ZeRO-1."""
    if cfg.get("fsdp") or cfg.get("fsdp_config"):
        return ("weights", "gradients", "optimizer")
    if cfg.get("deepspeed"):
        given = cfg["deepspeed"]
        settings = (
            given if isinstance(given, Mapping) else yaml.safe_load(Path(given).read_text(encoding="utf-8"))
        )
        stage = (settings.get("zero_optimization") or {}).get("stage", 0)
        return ("optimizer", "gradients", "weights")[:stage]
    return ()


def _chain(recipe: Path, cfg: Mapping, seen: tuple = ()) -> tuple[str, bool]:
    """The model that the chain of recipes began with, by the YAMLs beside this one that make what it starts
    from; and whether one of them unties the embeddings."""
    base = cfg.get("base_model")
    if not base:
        raise EEVEError(f"{recipe} names no base_model; add one")
    untied = bool((cfg.get("eeve") or {}).get("untie"))
    if (Path(base) / "config.json").is_file():
        return base, untied
    for other in sorted(recipe.parent.glob("*.yml")):
        output = output_of(other)
        if other in (recipe, *seen) or output is None:
            continue
        if Path(base) in (Path(output), Path(output) / "merged"):
            first, before = _chain(other, read_mapping(other), (*seen, recipe))
            return first, untied or before
    return base, untied


def _in_one_matrix(stage: Stage) -> Stage:
    """The stage as a tied model trains it: stage 4 trains its one matrix whole, and so runs backward.

    Raises EEVEError where input and output rows differ in any other way (see `rows.row_mask`).
    """
    if stage.input_embeddings is stage.output_embeddings:
        return stage
    if (stage.input_embeddings, stage.output_embeddings) == (Rows.NONE, Rows.ALL):
        return dataclasses.replace(stage, input_embeddings=Rows.ALL)
    raise EEVEError(
        f"stage {stage.name} trains input and output embeddings differently, and this model ties them into one "
        "matrix; set `eeve.untie: true`, or use stages 3, 4, 6 and 7"
    )


def _vocabulary(recipe, cfg, settings: EEVESettings, shape: Shape, options: Options) -> tuple[int, int]:
    """The base's tokens and all tokens: from the tokenizer if it is built, else from the YAML that will build it."""
    directory = cfg.get("tokenizer_config") or cfg.get("base_model") or ""
    base = manifest_base_size(directory)
    if base:
        manifest = json.loads((Path(directory) / TOKENIZER_MANIFEST).read_text(encoding="utf-8"))
        return base, manifest["vocab_size"]
    mark = shape.config.get(MARK)
    if mark:
        return mark["base_vocab_size"], mark["vocab_size"]
    base = settings.base_vocab_size or shape.rows
    if options.new_tokens is not None:
        return base, base + options.new_tokens
    for other in sorted(recipe.parent.glob("*.yml")):
        content = yaml.safe_load(other.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("new_tokens") and content.get("output"):
            if Path(content["output"]) == Path(directory):
                return base, base + content["new_tokens"]
    raise EEVEError(
        f"{recipe} uses the tokenizer {directory}, which is not built yet; say how many tokens it will add with "
        "--new-tokens"
    )


def check_fits(plans: list[StagePlan], options: Options) -> None:
    """Raise EEVEError for the first stage that does not fit, with the key to change."""
    for each in plans:
        if not each.fits:
            raise EEVEError(
                f"stage {each.stage.name} ({each.recipe}) needs {each.memory.total / 1e9:.1f} GB of the "
                f"{each.limit / 1e9:.1f} GB that may be filled on a {options.gpu.name}; {each.advice}"
            )
