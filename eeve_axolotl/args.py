"""The `eeve:` block of an Axolotl YAML: its keys, their defaults, and every message a user can get wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from eeve_axolotl.settings import Settings
from eeve_axolotl.stages import STAGES, Layers, Rows, Stage


class InitSettings(Settings):
    """Where new rows start. Only rows that the checkpoint does not have are initialised."""

    input: Literal["mean"] = "mean"
    """Input row: `mean` of the input rows of the token's subwords under the base tokenizer (paper 2.2)."""

    output: Literal["first_character", "first_subword", "mean"] = "first_character"
    """Output row: `first_subword` is the paper's rule read literally (2.2): word-initial tokens then
    share the row of a bare "▁", and syllables that the base lacks share a byte's row.
    `first_character` (our default) is the same rule with a bare "▁" skipped and a lone byte replaced
    by the mean of the bytes that spell the character. `mean` is the input rule on the output rows."""


class EEVESettings(Settings):
    """What one run trains: a stage of the paper by its number, or a stage of one's own in three words."""

    stage: int | None = None
    """1 to 7: a name for one row of the paper's table (see `eeve_axolotl.stages`)."""

    input_embeddings: Rows | None = None
    """Rows of the input embeddings that train: none, new or all. Instead of `stage`."""

    output_embeddings: Rows | None = None
    """Rows of the output embeddings (`lm_head`) that train: none, new or all. Instead of `stage`."""

    internal_layers: Layers | None = None
    """How the internal layers train: frozen, qlora or full. Instead of `stage`."""

    base_vocab_size: int | None = Field(default=None, gt=0)
    """Number of tokens of the base tokenizer; the new rows are those from here on. Left out, it is
    read from the model, the tokenizer's manifest or the base model's rows; it is always checked."""

    untie: bool = False
    """Give a model whose input and output embeddings are one matrix (Gemma, Llama-3.2-1B, small Qwen) an
    output matrix of its own, a copy, before its rows are resized. All seven stages then make sense; the
    saved model says `tie_word_embeddings: false` and is larger by that matrix. Does nothing where the
    model has two already. Left out, stages 3, 4 (all rows of the one matrix), 6 and 7 run with the tie kept."""

    init: InitSettings = InitSettings()
    """Where new rows start."""

    @model_validator(mode="after")
    def _a_stage_or_its_three_words(self) -> EEVESettings:
        words = (self.input_embeddings, self.output_embeddings, self.internal_layers)
        given = [word is not None for word in words]
        if self.stage is not None:
            if any(given):
                raise ValueError(
                    "give either `stage` or the three words input_embeddings, output_embeddings and "
                    "internal_layers, not both"
                )
            if self.stage not in STAGES:
                raise ValueError(f"stage {self.stage} does not exist; the stages are 1 to {len(STAGES)}")
        elif not all(given):
            raise ValueError(
                "say what trains: `stage: 1` to `stage: 7`, or all three of input_embeddings, "
                "output_embeddings (none, new, all) and internal_layers (frozen, qlora, full)"
            )
        elif not self.resolved().trains_anything:
            raise ValueError("with none, none and frozen nothing trains; change one of the three words")
        return self

    def resolved(self) -> Stage:
        """The stage that this block names."""
        if self.stage is not None:
            return STAGES[self.stage]
        return Stage("custom", self.input_embeddings, self.output_embeddings, self.internal_layers)


class EEVEArgs(BaseModel):
    """Mixed into Axolotl's config schema, so that `eeve:` is a known key with a documented shape."""

    eeve: EEVESettings | None = Field(
        default=None,
        json_schema_extra={"description": "EEVE vocabulary expansion: which stage this run trains"},
    )
