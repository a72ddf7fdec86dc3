"""What `axolotl eeve init` says when it is done."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

from eeve_axolotl.planner.estimate import StageEstimate
from eeve_axolotl.project.make import Project


def told(project: Project) -> Iterator[str]:
    """The files, what fits, how long it takes where that is known, notes, and what to type."""
    yield from (str(file) for file in project.files)
    yield ""
    yield f"Planned for {project.machine}:"
    for each in project.estimates:
        yield f"  stage {each.stage.name}: {_batch(each)}, {each.memory.total / 1e9:.1f} GB at its peak{_time(each)}"
    hours = sum(each.hours for each in project.estimates)
    if not math.isnan(hours):
        yield f"  all stages: {hours:,.1f} hours at most, without loading, saving and evaluation"
    for note in project.notes:
        yield f"Note: {note}"
    yield ""
    yield f"cd {shlex.quote(str(project.files[0].parent))} && axolotl eeve run pipeline.yml"


def _batch(each: StageEstimate) -> str:
    step = each.training.step
    checkpointed = ", checkpointed" if each.training.checkpointing else ""
    return f"{step.micro_batch} x {step.accumulation} sequences of {step.sequence_len:,} tokens{checkpointed}"


def _time(each: StageEstimate) -> str:
    return "" if math.isnan(each.hours) else f", {each.hours:,.1f} hours"
