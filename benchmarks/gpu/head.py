"""(b) The head's loss in chunks beside the plain one, Liger's and cut cross-entropy: time, memory and gradients.

The model has no layers, as in benchmarks/head_loss.py: what a step takes is the head and its loss.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable

import torch

from benchmarks.allocated import peak_bytes
from benchmarks.freezing_methods import Shape, time_in_turn
from benchmarks.gpu.battery import Battery, CannotRunError, needs, needs_a_card
from benchmarks.head_loss import CHUNKED, NEW_ROWS, PLAIN, ROWS, head_gradient, prepared
from eeve_axolotl.stages import STAGES, Rows

LIGER, CUT = "Liger", "cut cross-entropy"
Step = Callable[[torch.Tensor], None]


def run(battery: Battery) -> None:
    sizes = battery.sizes
    for vocabulary in (40_960,) if battery.rehearsal else (40_960, 262_144):
        for stage in (1, 2, 4, 5):
            ways = [CHUNKED, PLAIN, LIGER, CUT]
            if STAGES[stage].output_embeddings is Rows.NEW:
                ways.insert(2, ROWS)
            shape = Shape(sizes.shape.hidden, layers=0, vocab=vocabulary, base=vocabulary - NEW_ROWS)
            if battery.rehearsal:
                shape = Shape(64, 0, vocabulary // 64, vocabulary // 64 - NEW_ROWS // 64)
            for way in ways:
                battery.figure(
                    f"stage {stage}, {way}",
                    lambda shape=shape, stage=stage, way=way: measure(battery, shape, stage, way),
                    vocabulary=shape.vocab,
                    tokens=2 * sizes.length,
                )


def measure(battery: Battery, shape: Shape, stage: int, way: str) -> dict:
    """One way at one vocabulary: seconds and bytes of a step, and how far gradients are from plain arithmetic's."""
    sizes = battery.sizes
    args = argparse.Namespace(dtype=str(sizes.dtype).removeprefix("torch."), device=sizes.device)
    model, step = built(shape, stage, way, args)
    data = shape.batches(sizes.turns + 1, 2, sizes.length, sizes.device)
    seconds = time_in_turn({way: step}, data, battery.clock)[way]
    model.zero_grad()
    peak = peak_bytes(lambda: step(data[0]), sizes.device)
    found = {"milliseconds": 1000 * statistics.median(seconds), "peak_bytes": peak}
    if way != PLAIN:
        found["gradient_error"] = error(shape, stage, way, args, data[0][:1, : sizes.length // 8])
    return found


def built(shape: Shape, stage: int, way: str, args: argparse.Namespace) -> tuple[torch.nn.Module, Step]:
    """A model that trains the stage, and its forward and backward pass in one of the ways."""
    if way == LIGER and not STAGES[stage].backward_through_layers:
        raise CannotRunError("Liger's loss makes no gradient of the head where nothing below it trains")
    # Both others train every row of the head or none.
    model = prepared(shape, stage, PLAIN if way in (LIGER, CUT) else way, args)
    loss = {LIGER: liger, CUT: cut}[way]() if way in (LIGER, CUT) else None

    def step(ids: torch.Tensor) -> None:
        model.zero_grad()
        if loss is None:
            model(input_ids=ids, labels=ids).loss.backward()
        else:
            hidden = model.model(input_ids=ids).last_hidden_state[:, :-1].flatten(0, 1)
            loss(hidden, model.lm_head.weight, ids[:, 1:].flatten()).backward()

    return model, step


def liger() -> Callable:
    """Liger's fused loss: (hidden states, weight, targets) to the mean."""
    needs("liger_kernel", "Liger's loss")
    needs_a_card("Liger's loss")
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    fused = LigerFusedLinearCrossEntropyLoss()
    return lambda hidden, weight, target: fused(weight, hidden, target)


def cut() -> Callable:
    """Apple's cut cross-entropy: (hidden states, weight, targets) to the mean."""
    needs("cut_cross_entropy", "cut cross-entropy")
    needs_a_card("cut cross-entropy")
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy


def error(shape: Shape, stage: int, way: str, args: argparse.Namespace, ids: torch.Tensor) -> float:
    """The largest difference of any gradient from that of the plain way, as a share of the largest element."""
    found = {}
    for each in (way, PLAIN):
        model, step = built(shape, stage, each, args)
        step(ids)
        found[each] = {name: value.float() for name, value in head_gradient(model, stage, shape).items()}
        del model, step
        gc.collect()
    assert found[way].keys() == found[PLAIN].keys() and found[way]
    return max(
        ((one - found[PLAIN][name]).abs().max() / found[PLAIN][name].abs().max()).item()
        for name, one in found[way].items()
    )
