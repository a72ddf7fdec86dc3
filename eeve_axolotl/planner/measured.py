"""How far a plan was from what was measured: the lines of benchmarks/stages.py, packaged by device."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from eeve_axolotl.planner.gpus import GPU

# Device ("cpu", or a GPU by the planner's name) -> what `benchmarks/stages.py --json` printed on it.
FILE = Path(__file__).with_name("measured.json")
WHERE = "benchmarks/RESULTS.md, Stages"


def read(path: Path = FILE) -> dict[str, dict[str, dict]]:
    """The measurements: device -> stage -> its line."""
    return json.loads(path.read_text(encoding="utf-8"))


def plan_against(
    measurements: dict[str, dict[str, dict]], gpu: GPU, utilisation: float, stages: Iterable[str]
) -> str:
    """The plan's errors for these stages, in a sentence: on this GPU, or else, of memory alone, on a CPU."""
    measured = measurements.get(gpu.name, {})
    here = {stage: measured[stage] for stage in stages if measured.get(stage)}
    if here:
        said = [
            f"stage {stage} peak {_of_the_peak(each):+.1%}, time {_of_the_time(each, gpu, utilisation):+.0%}"
            for stage, each in here.items()
        ]
        return f"Planned against measured on a {gpu.name} ({WHERE}): {'; '.join(said)}."
    errors = [abs(_of_the_peak(each)) for each in measurements.get("cpu", {}).values()]
    return (
        f"Nothing was measured on a {gpu.name}: hours rest on the utilisation assumed. On a CPU, on a small model, the "
        f"planned peaks of stages {', '.join(measurements['cpu'])} were at most {max(errors):.1%} off ({WHERE})."
    )


def _of_the_peak(line: dict) -> float:
    return line["planned_bytes"] / line["peak_bytes"] - 1


def _of_the_time(line: dict, gpu: GPU, utilisation: float) -> float:
    planned_tokens_per_second = gpu.flops * utilisation / line["planned_flops_per_token"]
    return line["tokens_per_second"] / planned_tokens_per_second - 1
