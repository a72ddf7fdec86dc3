"""(d) What settings do to tokens/s and peak memory: attention, compiling, checkpointing, micro batches."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from benchmarks import stages
from benchmarks.freezing_methods import ours_whole, time_in_turn
from benchmarks.gpu.battery import Battery, CannotRunError
from benchmarks.gpu.stages import Models, arguments

PLAIN: dict[str, Any] = {"attention": "sdpa", "compile": "no", "checkpointing": True, "micro_batch": 1}
# What is tried, from the plain setting: one thing at a time.
TRIED: list[dict[str, Any]] = [
    {},
    {"attention": "flash_attention_2"},
    {"checkpointing": False},
    {"compile": "layers"},
    *({"micro_batch": each} for each in (2, 4, 8, 16)),
    {"compile": "model"},
]
TURNS = 3  # timed steps: sixteen sequences of SOLAR take a card ten seconds
TRIED_STAGES = (3, 2)  # backward through the layers, and not


def run(battery: Battery) -> None:
    args = arguments(battery)
    models = Models(args, battery)
    for changed in TRIED:
        for stage in TRIED_STAGES:
            setting = {**PLAIN, **changed}
            if stage == 2 and "checkpointing" in changed:
                continue  # it has nothing to make anew
            if battery.rehearsal and setting["micro_batch"] > 2:
                continue
            battery.figure(
                f"stage {stage}",
                lambda stage=stage, setting=setting: measure(battery, models, stage, setting),
                **setting,
            )


def measure(battery: Battery, models: Models, stage: int, setting: dict[str, Any]) -> dict:
    """Tokens/s and bytes of a stage in one setting."""
    if setting["attention"] == "flash_attention_2" and not is_flash_attn_2_available():
        raise CannotRunError("flash-attn is not installed, or there is no card for it")
    sizes = battery.sizes
    model = stages.sharing_layers(models.whole())
    model.set_attn_implementation(setting["attention"])
    run = stages.prepare(model, stage, ours_whole, sizes.shape, setting["checkpointing"])
    backend = "aot_eager" if battery.rehearsal else "inductor"
    if setting["compile"] == "layers":
        for layer in model.model.layers:
            layer.compile(backend=backend)
    elif setting["compile"] == "model":
        model.compile(backend=backend)
    data = sizes.shape.batches(TURNS + 1, setting["micro_batch"], sizes.length, sizes.device)
    try:
        seconds = time_in_turn({"step": run.step}, data, battery.clock)["step"]
        peak = stages.measured_peak(run, data[0], sizes.device)
    finally:
        torch.compiler.reset()
    return {
        "tokens_per_second": setting["micro_batch"] * sizes.length / statistics.median(seconds),
        "peak_bytes": peak,
    }
