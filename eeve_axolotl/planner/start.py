"""What the start of output rows costs, which a pipeline has before its first stage."""

from __future__ import annotations

from pathlib import Path

from eeve_axolotl.pipeline.settings import PipelineSettings, StartSettings
from eeve_axolotl.planner.estimate import Options, StageEstimate, is_pipeline
from eeve_axolotl.planner.flops import hours
from eeve_axolotl.planner.shapes import Shape, read_config, shape_of
from eeve_axolotl.settings import read_mapping, read_yaml

HELD = 1 / 4  # tokens of the documents to choose on, of those to fit to: every fifth document is kept apart
READ = 3  # times that those go through the layers
PASSES = 35  # of the fit over the states: so many at most where it was counted (benchmarks/new_rows.py)


def start_flops(shape: Shape, settings: StartSettings, base_rows: int, new_rows: int) -> float:
    """Operations of `axolotl eeve start`, a multiply-add being two.

    Each token goes through the layers, those to choose on `READ` times, two of them with the head; the base's logits are
    made of each state once, and the fit has two products of the new rows with each state, forward and backward.
    """
    fitted, held = settings.tokens, HELD * settings.tokens
    attention = 2 * settings.max_length * shape.attention_width * shape.layers
    layers = (fitted + READ * held) * (2 * shape.linear_parameters + attention)
    head = ((fitted + held) * base_rows + 2 * held * (base_rows + new_rows)) * 2 * shape.hidden
    fit = PASSES * fitted * 4 * new_rows * shape.hidden
    return layers + head + fit


def start_of(recipe: str | Path, estimates: list[StageEstimate], options: Options) -> str | None:
    """A line on the start of a pipeline, whose stages were estimated; None for what has none."""
    if not is_pipeline(read_mapping(Path(recipe), options.changes)):
        return None
    settings = read_yaml(Path(recipe), PipelineSettings, options.changes).start
    if settings is None:
        return None
    training = estimates[0].training
    shape = shape_of(read_config(options.base_model or settings.base))
    new = training.rows - training.base_rows
    flops = start_flops(shape, settings, training.base_rows, new)
    minutes = 60 * hours(flops, 1, options.gpu.flops, options.utilisation)
    return (
        f"Before the stages `start` fits {new:,} output rows to {settings.tokens:,} tokens: {flops / 1e15:,.2f} PFLOPs, "
        f"{minutes:,.1f} minutes of one GPU, not in the table."
    )
