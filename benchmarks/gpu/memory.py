"""(e) The planner's peak of every stage beside what PyTorch really allocates, over micro batches and checkpointing."""

from __future__ import annotations

from benchmarks import stages
from benchmarks.freezing_methods import ours_whole
from benchmarks.gpu.battery import Battery
from benchmarks.gpu.stages import Models, arguments
from eeve_axolotl.stages import STAGES, Layers


def run(battery: Battery) -> None:
    args, shape = arguments(battery), battery.sizes.shape
    models = Models(args, battery)
    for stage, checkpointing, micro_batch in cases((1,) if battery.rehearsal else (1, 4)):
        args.batch, args.checkpointing = micro_batch, checkpointing

        def make(stage: int = stage) -> dict:
            qlora = STAGES[stage].internal_layers is Layers.QLORA
            model = models.of(stage)
            model = stages.adapted(model, stage) if qlora else stages.sharing_layers(model)
            run = stages.prepare(model, stage, ours_whole, shape, args.checkpointing)
            (ids,) = shape.batches(1, args.batch, args.length, args.device)
            real = stages.measured_peak(run, ids, args.device)
            planned = stages.planned(shape, stage, args)[0]
            return {"peak_bytes": real, "planned_bytes": planned, "error": planned / real - 1}

        battery.figure(f"stage {stage}", make, checkpointing=checkpointing, micro_batch=micro_batch)


def cases(micro_batches: tuple[int, ...]) -> list[tuple[int, bool, int]]:
    """(stage, checkpointing, sequences): checkpointing only where something runs backward through the layers."""
    found = []
    for stage, what in STAGES.items():
        for checkpointing in (False, True) if what.backward_through_layers else (False,):
            found += [(stage, checkpointing, micro_batch) for micro_batch in micro_batches]
    return found
