"""The keys of a pipeline YAML."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from eeve_axolotl.evaluation.settings import EvaluationSettings
from eeve_axolotl.settings import Settings


class StartSettings(Settings):
    """`axolotl eeve start` as a step: the base with its new rows, the output rows fitted to text."""

    base: str = Field(min_length=1)
    """The base model, without the new rows: a directory, or its name on the hub."""

    output: str = Field(min_length=1)
    """Where the base goes with its new rows. The first run's `base_model` is this place."""

    texts: list[str] = Field(default=[])
    """Files or directories of text as the stages read it, the base's own languages included. Left out: what `corpus`
    writes to train on, or without `corpus` the local `datasets` of the first run."""

    tokens: int = Field(default=100_000, gt=0)
    """Of the texts to fit to, at most. States take this many times the model's width, in memory."""

    max_length: int = Field(default=512, gt=1)
    """Tokens in one forward pass."""

    untie: bool | None = None
    """Give a model whose embeddings are one matrix a second. Left out: as `eeve.untie` of the first run."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights' type, read and written; `auto` is the base's."""


class PipelineSettings(Settings):
    """Paths are relative to the directory in which the command runs, as in Axolotl's own YAML."""

    output: str
    """Directory for what is the pipeline's own: its state, logs, evaluations and report."""

    tokenizer: str | None = None
    """A YAML for `axolotl eeve tokenizer`, run if its output is not there yet. Left out: the runs' tokenizer exists."""

    corpus: str | None = None
    """A YAML for `axolotl eeve corpus`, run after the tokenizer if its output is not there yet; the runs read that output.
    Left out: the runs' text exists."""

    start: StartSettings | None = None
    """Where new output rows start, before the first run and after the corpus. Left out: the first run sets the rows that its
    base lacks."""

    runs: list[str] = Field(min_length=1)
    """Axolotl YAMLs with an `eeve:` block, in order, each starting from what the one before writes."""

    launcher: Literal["accelerate", "torchrun", "python"] = "accelerate"
    """How `axolotl train` starts its processes."""

    launcher_args: list[str] = Field(default=[])
    """Arguments for the launcher, passed on as they are (`--nproc_per_node=8`)."""

    train_args: list[str] = Field(default=[])
    """More arguments for `axolotl train`, as on its command line."""

    price_per_hour: float | None = Field(default=None, ge=0)
    """What the machine costs an hour, with all of its GPUs: the cost so far is shown while a run trains."""

    evaluate: EvaluationSettings | None = None
    """What to evaluate after each run; left out, nothing."""
