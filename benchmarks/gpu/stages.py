"""(a) Every stage at SOLAR's true shape: tokens/s, utilisation and peak memory, beside Axolotl's way and the bound."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from benchmarks import stages
from benchmarks.gpu.battery import Battery, is_installed, needs
from eeve_axolotl.stages import STAGES, Layers

LARGE_PRODUCT = (
    8192  # wide, of the matrix product that stands for the peak of a card that the planner does not know
)


class Models:
    """The model with random weights that the figures of a part share, made when the first one needs it."""

    def __init__(self, args: argparse.Namespace, battery: Battery):
        self._args, self._shape = args, battery.sizes.shape
        self._model: nn.Module | None = None

    def whole(self) -> nn.Module:
        """The shared one: the layers keep their weights, so that stages can train copies of the embeddings beside it."""
        if self._model is None:
            self._model = stages.build(self._shape, self._args)
        return self._model

    def of(self, stage: int) -> nn.Module:
        """The model for a stage; QLoRA turns layers into 4 bits, and gets one of its own, alone on the card."""
        if STAGES[stage].internal_layers is not Layers.QLORA:
            return self.whole()
        needs("bitsandbytes", f"stage {stage} (QLoRA)")
        self._model = None
        return stages.build(self._shape, self._args)


def arguments(battery: Battery) -> argparse.Namespace:
    """Those of benchmarks/stages.py, for the sizes of the battery."""
    sizes = battery.sizes
    options = {
        "--device": sizes.device,
        "--hidden": sizes.shape.hidden,
        "--layers": sizes.shape.layers,
        "--batch": 1,
        "--length": sizes.length,
        "--turns": sizes.turns,
    }
    return stages.parse([str(part) for option in options.items() for part in option])


def peak_flops(battery: Battery) -> float:
    """Operations a second of this card: by its data sheet where the planner knows it, or of a large product."""
    args = arguments(battery)
    args.gpu = battery.planner_card
    if args.gpu or not battery.rehearsal:
        return stages.peak_flops(args)
    one = torch.ones(64, 64)
    began = battery.clock()
    one @ one
    return 2 * 64**3 / (battery.clock() - began)


def run(battery: Battery) -> None:
    args = arguments(battery)
    models = Models(args, battery)
    for stage in STAGES:
        for checkpointing in (False, True):
            args.checkpointing = checkpointing

            def make(stage: int = stage) -> dict:
                return stages.measure(battery.sizes.shape, stage, models.of(stage), peak_flops(battery), args)

            beside = (
                {} if STAGES[stage].internal_layers is Layers.QLORA else {"axolotl": is_installed("axolotl")}
            )
            found = battery.figure(f"stage {stage}", make, checkpointing=checkpointing, **beside)
            if found is None or found.get("fits", True):
                break  # with checkpointing only where it does not fit without
