"""(f) Frozen rows on CUDA: bit for bit the same after steps of every optimiser, those with kernels of their own first."""

from __future__ import annotations

import tempfile

import torch

from benchmarks.freezing_methods import HEAD, TABLE, Shape, count_moved, frozen_rows, ours_whole
from benchmarks.gpu.battery import Battery, CannotRunError, needs
from eeve_axolotl import rows
from eeve_axolotl.stages import STAGES
from tests.rows import optimizers

# Kernels of their own: torch's fused and foreach ones, bitsandbytes', torchao's, Axolotl's.
FIRST = [
    *("adamw_torch_fused", "adamw_torch", "adafactor", "sgd", "adagrad", "rmsprop"),
    *(
        "adamw_bnb_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "lion_8bit",
        "ademamix_8bit",
        "rmsprop_bnb_8bit",
    ),
    *("adamw_torch_8bit", "adamw_torch_4bit", "ao_adamw_fp8", "muon"),
]
NAMES = [*FIRST, *(each for each in optimizers.ALL if each not in FIRST)]
BITSANDBYTES = ("bnb", "paged", "lion", "ademamix")
TORCHAO = ("adamw_torch_8bit", "adamw_torch_4bit", "ao_adamw_fp8")


def run(battery: Battery) -> None:
    names = [*FIRST[:3], "adamw_bnb_8bit", "muon"] if battery.rehearsal else NAMES
    for name in names:
        for stage in (3, 5):
            battery.figure(
                f"{name}, stage {stage}", lambda name=name, stage=stage: moved(battery, name, stage)
            )


def moved(battery: Battery, name: str, stage: int) -> dict:
    """Rows that moved in some steps of an optimiser at a high learning rate, with weight decay."""
    if any(part in name for part in BITSANDBYTES):
        needs("bitsandbytes", name)
    if name in TORCHAO:
        needs("torchao", name)
    if name in optimizers.AXOLOTL:
        needs("axolotl", name)
    elif name.startswith("schedule_free"):
        needs("schedulefree", name)
    if package := optimizers.missing(name):
        raise CannotRunError(f"{package} is not installed, which {name} needs")
    sizes = battery.sizes
    shape = Shape(64, 2, 640, 500) if battery.rehearsal else Shape(1024, 4, 40_960, 32_000)
    model = shape.model(sizes.dtype, sizes.device)
    before = {key: model.state_dict()[key].to("cpu", copy=True) for key in (TABLE, HEAD)}
    mask = rows.row_mask(model, STAGES[stage], shape.base)
    frozen = ours_whole(model, stage, shape.base)
    first = rows.fingerprint(model, mask)
    with tempfile.TemporaryDirectory() as folder, torch.compiler.set_stance("force_eager"):
        optimizer = frozen.protect(optimizers.build(name, model, folder, lr=1e-2))
        for ids in shape.batches(8, 2, 32 if battery.rehearsal else 512, sizes.device):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    first.check(rows.fingerprint(model, mask))
    frozen_moved, trained_moved = count_moved(
        before, frozen.plain(model.state_dict()), frozen_rows(shape, stage)
    )
    return {"frozen_rows_moved": frozen_moved, "trained_rows_moved": trained_moved}
