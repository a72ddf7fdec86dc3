"""What a recipe says of a stage's training: its batch, its dtypes, its rows, and which model the chain began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from eeve_axolotl.args import EEVESettings, ScheduledStage, read_block
from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.checks import CUT_LOSS, LIGER_LOSS, other_loss, output_of, start_of
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.planner.memory import HeadLoss, Training
from eeve_axolotl.planner.shapes import Shape, read_config, shape_of
from eeve_axolotl.records import MARK, TOKENIZER_FILE, TOKENIZER_MANIFEST, read
from eeve_axolotl.settings import read_mapping
from eeve_axolotl.sharding import check_sharding
from eeve_axolotl.stages import Layers, Rows, Stage
from eeve_axolotl.vocabulary import manifest_base_size


@dataclass(frozen=True)
class Recipe:
    """An Axolotl YAML of ours, and the shape of the model that it trains."""

    path: Path
    cfg: Mapping
    settings: EEVESettings
    shape: Shape

    @classmethod
    def read(
        cls, path: Path, base_model: str | None = None, changes: Iterable[str] = (), untied: bool = False
    ) -> Recipe:
        """Read a recipe.

        Args:
            base_model: whose config.json gives the shape, instead of the one that the recipe's chain began with.
            changes: KEY=VALUE, for keys of the recipe.
            untied: whether a step before it gives the model a second matrix.

        Raises EEVEError for a recipe that is not one, an unknown base model, or a way of sharding that cannot keep
        rows.
        """
        cfg = read_mapping(path, changes)
        settings = read_block(cfg, str(path))
        check_sharding(cfg, settings.untie, len(settings.schedule()), settings.frozen_precision is not None)
        first, in_the_chain = _first_model(path, cfg)
        config = read_config(base_model or first)
        if untied or in_the_chain:
            config = {**config, "tie_word_embeddings": False}
        return cls(path, cfg, settings, shape_of(config))

    def stage(self, scheduled: ScheduledStage) -> Stage:
        """The stage as this model trains it (see `_in_one_matrix`)."""
        stage = scheduled.resolved()
        return _in_one_matrix(stage) if self.shape.tied else stage

    def training(
        self,
        scheduled: ScheduledStage,
        gpus: int,
        global_batch: int | None = None,
        new_tokens: int | None = None,
    ) -> Training:
        """What the stage's memory depends on.

        Args:
            global_batch: sequences of a step instead of the recipe's own.
            new_tokens: how many tokens a tokenizer that is not built yet will add.

        Raises EEVEError for a global batch that does not divide, adapters without a rank, or an unknown vocabulary.
        """
        cfg, stage = self.cfg, self.stage(scheduled)
        base, size = self._vocabulary(new_tokens)
        rows = max(size, self.shape.rows)
        if cfg.get("resize_token_embeddings_to_32x"):
            rows = -(-rows // 32) * 32
        if stage.internal_layers is Layers.QLORA and not cfg.get("lora_r"):
            raise EEVEError(f"{self.path} trains adapters without saying their rank; set lora_r")
        try:
            step = OptimizerStep.of(cfg, self.settings, scheduled, processes=gpus, global_batch=global_batch)
        except EEVEError as error:
            raise EEVEError(f"{self.path}: {error}") from None
        dtype = torch.bfloat16 if cfg.get("bf16") else torch.float16 if cfg.get("fp16") else torch.float32
        return Training(
            rows=rows,
            base_rows=base,
            step=step,
            dtype=dtype,
            embeddings_dtype=torch.float32 if _keeps_embeddings_in_32_bits(cfg) else dtype,
            checkpointing=bool(cfg.get("gradient_checkpointing")) and stage.backward_through_layers,
            head_loss=_head_loss(cfg, self.settings),
            in_fp8=self.settings.frozen_precision is not None and stage.internal_layers is Layers.FROZEN,
            optimizer=cfg.get("optimizer") or "adamw_torch_fused",
            lora_rank=cfg.get("lora_r") or 0,
            tied=self.shape.tied,
            shards=_shards(cfg),
        )

    def _vocabulary(self, new_tokens: int | None) -> tuple[int, int]:
        """The base's tokens and all tokens: from the tokenizer if it is built, else from the YAML that will build it."""
        directory = self.cfg.get("tokenizer_config") or self.cfg.get("base_model") or ""
        base = manifest_base_size(directory)
        size = (read(Path(directory) / TOKENIZER_MANIFEST, TOKENIZER_FILE) or {}).get("vocab_size")
        if base and size:
            return base, size
        mark = self.shape.config.get(MARK)
        if mark and mark.get("vocab_size"):
            return mark["base_vocab_size"], mark["vocab_size"]
        base = self.settings.base_vocab_size or self.shape.rows
        if new_tokens is None:
            new_tokens = self._tokens_to_be_added(Path(directory))
        return base, base + new_tokens

    def _tokens_to_be_added(self, directory: Path) -> int:
        """The `new_tokens` of the YAML beside this recipe that will build the tokenizer in `directory`."""
        for other in sorted(self.path.parent.glob("*.yml")):
            content = beside(other)
            if content.get("new_tokens") and isinstance(content.get("output"), str):
                if Path(content["output"]) == directory:
                    return int(content["new_tokens"])
        raise EEVEError(
            f"{self.path} uses the tokenizer {directory}, which is not built yet; say how many tokens it will add with "
            "--new-tokens"
        )


def beside(path: Path) -> Mapping:
    """The keys of a YAML that lies beside a recipe, none if it is another kind of file: it is not what was asked for."""
    try:
        return read_mapping(path)
    except EEVEError:
        return {}


def _first_model(recipe: Path, cfg: Mapping, seen: tuple[Path, ...] = ()) -> tuple[str, bool]:
    """The model that the chain of recipes began with, by the YAMLs beside this one that make what it starts
    from, a pipeline's `start` too; and whether one of them unties the embeddings."""
    base = cfg.get("base_model")
    if not base:
        raise EEVEError(f"{recipe} names no base_model; add one")
    untied = bool((cfg.get("eeve") or {}).get("untie"))
    if (Path(base) / "config.json").is_file():
        return base, untied
    for other in sorted(recipe.parent.glob("*.yml")):
        start = start_of(other)
        if start.get("base") and start.get("output") and Path(base) == Path(str(start["output"])):
            return str(start["base"]), untied or bool(start.get("untie"))
        output = output_of(other)
        if other in (recipe, *seen) or output is None:
            continue
        if Path(base) in (Path(output), Path(output) / "merged"):
            first, before = _first_model(other, read_mapping(other), (*seen, recipe))
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


def _head_loss(cfg: Mapping, settings: EEVESettings) -> HeadLoss:
    other = other_loss(cfg)
    if other in (CUT_LOSS, LIGER_LOSS):
        return HeadLoss.FUSED
    return HeadLoss.PLAIN if other else HeadLoss(settings.head_loss)


def _keeps_embeddings_in_32_bits(cfg: Mapping) -> bool:
    """Axolotl 0.19 does unless one of these needs them in the run's dtype (its loaders/model.py)."""
    if cfg.get("adapter") or (cfg.get("attn_implementation") or "sdpa") not in ("sdpa", "eager"):
        return False
    return not any(cfg.get(key) for key in ("fsdp", "fsdp_config", "cut_cross_entropy"))


def _shards(cfg: Mapping) -> tuple[str, ...]:
    """What a run spreads over its GPUs: all of it with FSDP2 and ZeRO-3, less with ZeRO-2 and ZeRO-1."""
    if cfg.get("fsdp") or cfg.get("fsdp_config"):
        return ("weights", "gradients", "optimizer")
    given = cfg.get("deepspeed")
    if not given:
        return ()
    settings = (
        given if isinstance(given, Mapping) else yaml.safe_load(Path(given).read_text(encoding="utf-8"))
    )
    stage = (settings.get("zero_optimization") or {}).get("stage", 0)
    return ("optimizer", "gradients", "weights")[:stage]
