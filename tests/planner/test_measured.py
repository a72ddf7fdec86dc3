"""What was measured, beside what is planned today and what the command says of it."""

import pytest
import torch

from benchmarks.freezing_methods import Shape
from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.planner import gpus, measured
from eeve_axolotl.planner.memory import HeadLoss, Training, memory
from eeve_axolotl.planner.shapes import shape_of
from eeve_axolotl.stages import STAGES

H100 = gpus.find("h100-80gb")
ON_A_CPU = {"cpu": {"1": {"planned_bytes": 98, "peak_bytes": 100}}}


@pytest.mark.parametrize(
    ("device", "stage"), [(device, stage) for device, each in measured.read().items() for stage in each]
)
def test_a_packaged_measurement_is_within_a_tenth_of_what_is_planned_today(device, stage):
    line = measured.read()[device][stage]
    settings = line["settings"]
    shape = Shape(*(settings[key] for key in ("hidden", "layers", "vocab", "base")))
    dtype = getattr(torch, settings["dtype"])
    training = Training(
        rows=shape.vocab,
        base_rows=shape.base,
        step=OptimizerStep(settings["length"], settings["micro_batch"], accumulation=1, processes=1),
        dtype=dtype,
        embeddings_dtype=dtype,
        checkpointing=settings["checkpointing"] and STAGES[int(stage)].backward_through_layers,
        optimizer="adamw_torch",
        head_loss=HeadLoss(settings["head_loss"]),
        lora_rank=settings["lora_rank"],
    )
    planned = memory(shape_of(shape.config().to_dict()), STAGES[int(stage)], training).total
    assert planned == pytest.approx(line["planned_bytes"], rel=0.001), (
        "measure again: the planner has changed"
    )
    assert planned == pytest.approx(line["peak_bytes"], rel=0.1)


def test_a_gpu_that_was_not_measured_is_said_to_be_so():
    said = measured.plan_against(ON_A_CPU, H100, 0.4, ["1", "2"])
    assert "Nothing was measured on a h100-80gb" in said
    assert "at most 2.0% off" in said


def test_on_a_gpu_that_was_measured_memory_and_time_are_held_against_it():
    line = {
        "planned_bytes": 103,
        "peak_bytes": 100,
        "planned_flops_per_token": 2e10,
        "tokens_per_second": 0.5 * H100.flops / 2e10,  # half of the peak, where two fifths were assumed
    }
    said = measured.plan_against({**ON_A_CPU, "h100-80gb": {"2": line}}, H100, 0.4, ["1", "2"])
    assert "on a h100-80gb" in said and "stage 2 peak +3.0%, time +25%" in said and "stage 1" not in said
