"""The keys of a pipeline YAML."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from eeve_axolotl.evaluation.settings import EvaluationSettings
from eeve_axolotl.settings import Settings


class PipelineSettings(Settings):
    """Paths are relative to the directory in which the command runs, as in Axolotl's own YAML."""

    output: str
    """Directory for what is the pipeline's own: its state, logs, evaluations and report."""

    tokenizer: str | None = None
    """A YAML for `axolotl eeve tokenizer`, run if its output is not there yet. Left out: the runs' tokenizer exists."""

    corpus: str | None = None
    """A YAML for `axolotl eeve corpus`, run after the tokenizer if its output is not there yet; the runs read that output.
    Left out: the runs' text exists."""

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
