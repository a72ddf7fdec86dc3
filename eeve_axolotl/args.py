"""The `eeve:` block of an Axolotl YAML: its keys, their defaults, and every message a user can get wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.settings import Settings, explain
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


class ConvergenceSettings(Settings):
    """When a stage's loss counts as converged. The paper says "until the loss converged" and no more: ours."""

    window: int = Field(default=20, gt=0)
    """Steps over which the loss is averaged."""

    min_improvement: float = Field(default=0.005, ge=0)
    """A window improves if its mean loss is lower than the best before by this fraction of it."""

    patience: int = Field(default=2, gt=0)
    """Windows in a row without improvement after which the stage ends."""


class StageSettings(Settings):
    """A stage of the paper by its number, or one of one's own in three words, and when it ends."""

    stage: int | None = None
    """1 to 7: a name for one row of the paper's table (see `eeve_axolotl.stages`)."""

    input_embeddings: Rows | None = None
    """Rows of the input embeddings that train: none, new or all. Instead of `stage`."""

    output_embeddings: Rows | None = None
    """Rows of the output embeddings (`lm_head`) that train: none, new or all. Instead of `stage`."""

    internal_layers: Layers | None = None
    """How the internal layers train: frozen, qlora or full. Instead of `stage`."""

    max_tokens: int | None = Field(default=None, gt=0)
    """Token budget: the stage ends after so many tokens (sequence_len x batch, padding counted), or at
    `max_steps`, whichever comes first."""

    until_converged: ConvergenceSettings | None = None
    """End the stage when its loss has converged, before `max_steps`: `{}` takes the defaults."""

    input_learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the input embeddings; left out, `learning_rate` as for everything else. The paper has one
    rate for all; new input rows may want ten times that of output rows."""

    output_learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the output embeddings, bias included; left out, `learning_rate`."""

    @property
    def _words(self) -> tuple[Rows | None, Rows | None, Layers | None]:
        return (self.input_embeddings, self.output_embeddings, self.internal_layers)

    def _check_stage(self) -> None:
        given = [word is not None for word in self._words]
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
        for key in self._rates_of_no([self.resolved()]):
            raise ValueError(
                f"`{key}` is for the {_RATES[key].replace('_', ' ')}, and stage {self.resolved().name} trains none of "
                "their rows; remove it"
            )

    def _rates_of_no(self, stages: list[Stage]) -> list[str]:
        """The keys of rates that are given for a matrix of which none of `stages` trains a row."""
        return [
            key
            for key, matrix in _RATES.items()
            if getattr(self, key) is not None and all(getattr(stage, matrix) is Rows.NONE for stage in stages)
        ]

    def resolved(self) -> Stage:
        """The stage that this block names."""
        if self.stage is not None:
            return STAGES[self.stage]
        inputs, outputs, layers = self._words
        assert inputs is not None and outputs is not None and layers is not None  # _check_stage has looked
        return Stage("custom", inputs, outputs, layers)


# A key -> the matrix whose rate it is, by the name that a stage's words have.
_RATES = {"input_learning_rate": "input_embeddings", "output_learning_rate": "output_embeddings"}


class ScheduledStage(StageSettings):
    """One entry of `stages:`; what it leaves out is as the Axolotl config says."""

    max_steps: int | None = Field(default=None, gt=0)
    """Steps of this stage."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Learning rate of this stage."""

    warmup_steps: int | None = Field(default=None, ge=0)
    """Warm-up steps of this stage."""

    micro_batch_size: int | None = Field(default=None, gt=0)
    """Sequences in a micro batch of this stage, on each device."""

    gradient_accumulation_steps: int | None = Field(default=None, gt=0)
    """Micro batches in a step of this stage."""

    @property
    def own_rates(self) -> dict[str, float]:
        """Peak learning rates other than the stage's: `input_embeddings` and `output_embeddings`, where given."""
        given = {matrix: getattr(self, key) for key, matrix in _RATES.items()}
        return {matrix: rate for matrix, rate in given.items() if rate is not None}

    def refuses_one_matrix(self, learning_rate: float) -> str | None:
        """What is told where input and output embeddings are one matrix and the stage gives them two rates, else None.

        Args:
            learning_rate: what Axolotl's config says; the stage's own comes first.
        """
        stage, others = self.resolved(), self.learning_rate or learning_rate
        trained = [matrix for matrix in _RATES.values() if getattr(stage, matrix) is not Rows.NONE]
        rates = {self.own_rates.get(matrix, others) for matrix in trained}
        if len(rates) < 2:
            return None
        return (
            f"stage {stage.name} gives input and output embeddings the learning rates "
            f"{' and '.join(f'{rate:g}' for rate in sorted(rates))}, but this model ties them into one matrix: set "
            "`input_learning_rate` and `output_learning_rate` alike, or `eeve.untie: true`"
        )

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_a_stage(cls, value: Any) -> Any:
        if isinstance(value, dict) and "sequence_len" in value:
            raise ValueError(
                "`sequence_len` is the whole run's, whose text is cut once; give a stage of another length a run of "
                "its own (`axolotl eeve run` chains them)"
            )
        return {"stage": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _a_stage_or_its_three_words(self) -> ScheduledStage:
        self._check_stage()
        return self


class EvaluateSettings(Settings):
    """Held-out texts to score while training; the figures go to whatever tracker the Axolotl config names."""

    texts: dict[str, str] = Field(min_length=1)
    """Name of a text -> its file (JSON lines or Parquet with `text`, plain or compressed), or a directory of such."""

    every_steps: int | None = Field(default=None, gt=0)
    """Score every so many steps; at each stage's end in any case."""

    limit: int = Field(default=100, gt=0)
    """Documents of each text to read."""


class EEVESettings(StageSettings):
    """What one run trains: one stage, or a schedule of several without reloading the model."""

    stages: list[ScheduledStage] | None = Field(default=None, min_length=1)
    """Several stages in one run, in order: numbers, or mappings with a stage's own settings.
    Instead of `stage`. Stages with adapters (6, 7) need another load of the model: a run each."""

    save_stages: Literal["all", "last", "none"] = "last"
    """With `stages`: which finished stages' weights to keep under `output_dir`/stageN. `last` keeps the
    newest, from which a killed run resumes; `all` keeps each; `none` keeps none, and a killed run begins again."""

    keep_optimizer: bool = False
    """With `stages`: carry the optimiser's state over a boundary for what goes on training.
    Not published; our default starts afresh."""

    keep_schedule: bool = False
    """With `stages`: one learning-rate schedule over all of them, with one warm-up, in place of one for each.
    It is laid out for every stage's full steps; one that converges earlier leaves the next a higher rate."""

    text: Literal["continue", "again"] = "continue"
    """Which text a stage reads: `continue` goes on where the stage before it stopped (the one whose output is this
    run's base_model, or the one before it in `stages`), through the whole corpus before anything is read twice. `again`
    begins at the start of the corpus, so all stages read the same text. Whether the paper's stages share text was not
    published."""

    global_batch_size: int | None = Field(default=None, gt=0)
    """Sequences in a step, over all GPUs: `gradient_accumulation_steps` is worked out from it, `micro_batch_size`
    and the number of processes when the run starts, so leave that key out. The paper's: 256 (8 x 4 x 8 GPUs)."""

    head_loss: Literal["chunked", "plain"] = "chunked"
    """How the loss and the head's gradients are made: some tokens at a time, so that the logits are never whole, or
    all at once. The same numbers within rounding. A loss that the Axolotl config itself names (Liger's, cut
    cross-entropy) comes first, and a model that does more with its logits keeps its own: the log says so."""

    frozen_precision: Literal["fp8"] | None = None
    """In which precision frozen layers are read, in stages that train none of them: `fp8` holds their linear matrices
    in 8 bits on the GPU, for half of their memory; left out, they are as the model is loaded. What is saved are the
    base's own bits in either case. Needs a GPU with FP8 (L40S, H100 or newer) and a model held whole (one process or
    DDP). Its gain in speed is unproven until it is measured."""

    evaluate: EvaluateSettings | None = None
    """Score held-out texts while training, logged as `eeve/NAME/bits_per_byte` and the like."""

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
    def _a_stage_or_a_schedule(self) -> EEVESettings:
        if self.stages is None:
            self._check_stage()
            return self
        if self.stage is not None or any(word is not None for word in self._words):
            raise ValueError("give either `stage` (one) or `stages` (several), not both")
        names = [each.resolved().name for each in self.stages]
        for each in self.stages:
            if len(names) > 1 and each.resolved().internal_layers is Layers.QLORA:
                raise ValueError(
                    f"stage {each.resolved().name} trains adapters, which needs another load of the model: give it "
                    "a run of its own (`axolotl eeve run` chains them)"
                )
            if self.global_batch_size and each.gradient_accumulation_steps:
                raise ValueError(
                    f"stage {each.resolved().name} sets gradient_accumulation_steps, which follows from "
                    "global_batch_size; remove one of the two"
                )
        if len(set(names)) < len(names):
            raise ValueError("a stage stands twice in `stages`; name each once")
        for key in self._rates_of_no([each.resolved() for each in self.stages]):
            raise ValueError(
                f"`{key}` is for the {_RATES[key].replace('_', ' ')}, and no stage of `stages` trains a row of them; "
                "remove it"
            )
        own = [
            each
            for each in self.stages
            if each.learning_rate or each.warmup_steps is not None or each.own_rates
        ]
        if self.keep_schedule and own:
            raise ValueError(
                f"`keep_schedule` is one schedule for all stages, but stage {own[0].resolved().name} has a "
                "learning_rate (of all or of one matrix) or warmup_steps of its own; remove one of the two"
            )
        return self

    @property
    def rate_keys(self) -> list[str]:
        """Which of `input_learning_rate` and `output_learning_rate` a stage of this run uses."""
        used = {matrix for each in self.schedule() for matrix in each.own_rates}
        return [key for key, matrix in _RATES.items() if matrix in used]

    def schedule(self) -> list[ScheduledStage]:
        """The stages of this run in order; what an entry leaves out is taken from the block itself."""
        common = {name: getattr(self, name) for name in ("max_tokens", "until_converged", *_RATES)}
        if self.stages is None:
            words = {name: getattr(self, name) for name in ("stage", *_WORDS)}
            return [ScheduledStage.model_validate({**words, **common})]
        return [
            each.model_copy(
                update={
                    name: value
                    for name, value in common.items()
                    if getattr(each, name) is None
                    and (name not in _RATES or getattr(each.resolved(), _RATES[name]) is not Rows.NONE)
                }
            )
            for each in self.stages
        ]


_WORDS = ("input_embeddings", "output_embeddings", "internal_layers")


# What only a YAML of one kind has, and the command that it is for.
_KINDS = (
    ({"runs"}, "a pipeline's YAML", "axolotl eeve run"),
    ({"mix"}, "a corpus's YAML", "axolotl eeve corpus"),
    ({"base", "corpus", "output"}, "a tokenizer's YAML", "axolotl eeve tokenizer"),
    ({"lm_eval_tasks"}, "an evaluation's YAML", "axolotl lm-eval"),
    ({"tasks", "model"}, "an evaluation's YAML", "lm_eval run --config"),
    ({"base_model"}, "a YAML of Axolotl without an `eeve:` block", "axolotl train"),
)


def what_it_is(cfg: Mapping[str, Any]) -> str | None:
    """What a YAML without an `eeve:` block is, by its keys, and what reads it; None if that is not known."""
    found = next((each for each in _KINDS if each[0] <= cfg.keys()), None)
    return f"{found[1]}, which `{found[2]}` reads" if found else None


def read_block(cfg: Mapping[str, Any], where: str = "the config") -> EEVESettings:
    """The `eeve:` block of an Axolotl config.

    Args:
        where: what messages call the config: its file.

    Raises EEVEError if the block is missing or not valid.
    """
    block = cfg.get("eeve")
    if not block:
        kind = what_it_is(cfg)
        if kind and not cfg.get("plugins") and not cfg.get("base_model"):
            raise EEVEError(f"{where} is {kind}; give the YAML of a stage, which has an `eeve:` block")
        raise EEVEError(
            f"{where} has no `eeve:` block; add `eeve: {{stage: 1}}` beside the plugin, or remove the plugin"
        )
    if not isinstance(block, dict):
        raise EEVEError(f"{where}: `eeve: {block}` is not a block of keys; write `eeve: {{stage: 1}}`")
    try:
        return EEVESettings.model_validate(block.to_dict() if hasattr(block, "to_dict") else dict(block))
    except ValidationError as error:
        raise EEVEError(explain(error, f"{where}, the `eeve:` block", EEVESettings)) from None


class EEVEArgs(BaseModel):
    """Mixed into Axolotl's config schema, so that `eeve:` is a known key with a documented shape."""

    eeve: EEVESettings | None = Field(
        default=None,
        json_schema_extra={
            "description": "EEVE vocabulary expansion: which stage, or stages, this run trains"
        },
    )
