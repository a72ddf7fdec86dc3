"""The loss of the head in chunks beside the plain one: peak memory, time and gradients of both together.

    python benchmarks/head_loss.py              # a table
    python benchmarks/head_loss.py --json       # and, as the last line, one JSON object
    ... --device cuda --hidden 4096 --tokens 16384 --dtype bfloat16   # on a GPU

A model without layers: the embedding, the last norm, the head and its loss, forward and backward, so that next to
nothing else is in the figures. 8,960 rows are new, as in EEVE-10.8B, whatever the vocabulary.

Plain is what PyTorch and transformers do by themselves: the logits of all tokens, their cross-entropy, and for a head
of which some rows train the gradient of the whole matrix. Where it differs, `rows` is this project's own plain way
(`eeve: {head_loss: plain}`), which makes the gradient of the trained rows alone from logits that are whole.
Memory is what is allocated at once beside the weights; time, on a CPU the process's own, is the median of the ratios
of steps taken in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn

from benchmarks.allocated import peak_bytes
from benchmarks.freezing_methods import Shape, ratio, table, time_in_turn
from eeve_axolotl import rows
from eeve_axolotl.losses.chunked import use_chunked_loss
from eeve_axolotl.stages import STAGES, Rows

NEW_ROWS = 8960
PLAIN, ROWS, CHUNKED = "plain", "rows", "chunked"


def prepared(shape: Shape, number: int, way: str, args: argparse.Namespace) -> nn.Module:
    """A model that trains the stage in one of the three ways; the same weights in each."""
    stage = STAGES[number]
    if way == PLAIN and stage.output_embeddings is Rows.NEW:
        stage = dataclasses.replace(stage, output_embeddings=Rows.ALL)
    model = shape.model(getattr(torch, args.dtype), args.device)
    frozen = rows.freeze(model, rows.row_mask(model, stage, shape.base))
    if way == CHUNKED:
        assert use_chunked_loss(model)
    assert frozen.trained_parameters()
    return model


def head_gradient(model: nn.Module, number: int, shape: Shape) -> dict[str, torch.Tensor]:
    """The gradients of what the stage trains, whatever the way."""
    first = shape.base if STAGES[number].output_embeddings is Rows.NEW else 0
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        if name == "lm_head.weight" and len(parameter) == shape.vocab:
            found["head"] = parameter.grad[first:]
        else:
            found["head" if name.startswith("lm_head") else name] = parameter.grad
    return found


def error(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two gradients, as a share of the largest element."""
    assert one and one.keys() == other.keys()
    return max(((one[name] - other[name]).abs().max() / other[name].abs().max()).item() for name in one)


def measure(shape: Shape, number: int, args: argparse.Namespace) -> dict[str, float]:
    """One stage at one vocabulary."""
    ways = [PLAIN, CHUNKED]
    if STAGES[number].output_embeddings is Rows.NEW:
        ways.insert(1, ROWS)
    models = {way: prepared(shape, number, way, args) for way in ways}
    data = shape.batches(args.turns + 1, 1, args.tokens, args.device)

    def step(model: nn.Module, ids: torch.Tensor) -> None:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()

    works = {way: lambda ids, model=model: step(model, ids) for way, model in models.items()}
    seconds = time_in_turn(works, data, args.clock)
    gradients = {way: head_gradient(model, number, shape) for way, model in models.items()}
    found = {"gradient_error": error(gradients[CHUNKED], gradients[PLAIN])}
    for model in models.values():
        model.zero_grad()
    peaks = {way: peak_bytes(lambda work=works[way]: work(data[0]), args.device) for way in ways}
    for way, suffix in ((PLAIN, ""), (ROWS, "_rows")):
        if way in ways:
            found[f"peak_ratio{suffix}"] = peaks[CHUNKED] / peaks[way]
            found[f"time_ratio{suffix}"] = ratio(seconds, CHUNKED, way)[1]
    return found | {
        "peak_bytes": peaks[CHUNKED],
        "plain_peak_bytes": peaks[PLAIN],
        "milliseconds": 1000 * sorted(seconds[CHUNKED])[len(seconds[CHUNKED]) // 2],
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--stages", type=int, nargs="+", choices=range(1, 6), default=[1, 2, 4, 5])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[40_960, 262_144])
    parser.add_argument("--hidden", type=int, default=128, help="width of the hidden states")
    parser.add_argument(
        "--tokens", type=int, default=2048, help="of a step; 16 a unit of width, as 16 x 4,096 in 4,096"
    )
    parser.add_argument("--turns", type=int, default=3, help="timed steps of each")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU; 1 on a shared machine")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here")

    def of_the_gpu() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    # A CPU is shared with others, whose turns would be in the time by the clock on the wall.
    args.clock = of_the_gpu if args.device == "cuda" else time.process_time
    return args


HEADER = ["rows", "stage", "peak, MB", "plain, MB", "of plain's peak", "of plain's time", "gradient error"]


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    found: dict[str, dict[str, dict[str, float]]] = {}
    lines = []
    for vocabulary in args.vocabularies:
        shape = Shape(args.hidden, layers=0, vocab=vocabulary, base=vocabulary - NEW_ROWS)
        for stage in args.stages:
            each = found.setdefault(str(vocabulary), {})[str(stage)] = measure(shape, stage, args)
            own = [
                f" (rows: {each[f'{key}_rows']:.3f})" if f"{key}_rows" in each else ""
                for key in ("peak_ratio", "time_ratio")
            ]
            lines.append(
                [
                    f"{vocabulary:,}",
                    stage,
                    f"{each['peak_bytes'] / 1e6:,.0f}",
                    f"{each['plain_peak_bytes'] / 1e6:,.0f}",
                    f"1/{1 / each['peak_ratio']:.1f}{own[0]}",
                    f"{each['time_ratio']:.2f}{own[1]}",
                    f"{each['gradient_error']:.1e}",
                ]
            )
            print(*lines[-1], sep="  ", file=sys.stderr, flush=True)
    print(
        f"{args.device}, {args.threads} threads, torch {torch.__version__}, {args.dtype}; {args.tokens:,} tokens, "
        f"{args.hidden} wide, {NEW_ROWS:,} rows new; {args.turns} steps of each, in turn.\n"
    )
    print(table(HEADER, lines))
    if args.json:
        worst = max(each["gradient_error"] for stages in found.values() for each in stages.values())
        print(json.dumps({**found, "max_gradient_error": worst}))


if __name__ == "__main__":
    main()
