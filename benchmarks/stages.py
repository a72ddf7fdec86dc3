"""What each stage does with a GPU, or a CPU: tokens a second, utilisation and memory, beside Axolotl's way and the bound.

    python benchmarks/stages.py --device cuda        # SOLAR's true shape, random weights, bf16
    python benchmarks/stages.py                      # SOLAR's proportions, scaled to a CPU
    ... --json                                       # and, as the last line, one JSON object keyed by stage

Ours makes the head's loss in chunks, as it does by default. Axolotl's way is its own `unfrozen_parameters` with the
same rows, and is left out where Axolotl is not installed. The bound is, for stages 2 and 4, a forward pass
without gradients (head and loss included), and for stages 1, 3 and 5 a forward pass and the backward pass of its
activations alone; neither has an optimiser. All three step in turn in this process, on the same weights of the
internal layers; what is told are medians.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import importlib.util
import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn
from transformers.utils import is_flash_attn_2_available

from benchmarks.allocated import RANK, peak_bytes, qlora, standing_bytes
from benchmarks.freezing_methods import (
    SOLAR,
    Shape,
    Trainable,
    axolotl_ranges,
    ours_whole,
    ratio,
    table,
    time_in_turn,
    with_adamw,
)
from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.planner.flops import flops_per_token
from eeve_axolotl.planner.gpus import GPUS
from eeve_axolotl.planner.memory import Training, memory
from eeve_axolotl.planner.shapes import shape_of
from eeve_axolotl.stages import STAGES, Layers, Rows

OURS, AXOLOTL, BOUND = "ours", "axolotl", "bound"
STAGE_TOKENS = 400 * 1_048_576  # paper 3.2: before 400 steps of 8 x 4 x 8 GPUs x 4096 tokens
Work = Callable[[torch.Tensor], None]


def build(shape: Shape, args: argparse.Namespace) -> nn.Module:
    """A model with random weights on the device, whose attention is the recipes' where it is installed."""
    model = shape.model(args.dtype, args.device)
    model.config.use_cache = False
    if args.device == "cuda" and is_flash_attn_2_available():
        model.set_attn_implementation("flash_attention_2")
    return model


def sharing_layers(model: nn.Module) -> nn.Module:
    """A copy with embeddings of its own and the same internal layers, which no method trains: a GPU holds one SOLAR."""
    inside = [*model.model.layers.parameters(), *model.model.norm.parameters()]
    return copy.deepcopy(model, {id(each): each for each in inside})


def prepare(model: nn.Module, stage: int, method: Callable, shape: Shape, checkpointing: bool) -> Trainable:
    """The stage on a model, by one of the methods."""
    if checkpointing and STAGES[stage].backward_through_layers:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return with_adamw(method(model, stage, shape.base))


def adapted(model: nn.Module, stage: int) -> nn.Module:
    """The model with its layers in 4 bits and adapters, for the stages of QLoRA."""
    return qlora(
        model, [] if STAGES[stage].input_embeddings is Rows.NONE else ["embed_tokens", "lm_head"], RANK
    )


def bound(model: nn.Module, stage: int, checkpointing: bool) -> Work:
    """The least that the stage needs, as the module says."""
    model.requires_grad_(False)
    if not STAGES[stage].backward_through_layers:
        return torch.no_grad()(lambda ids: model(input_ids=ids, labels=ids).loss)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def work(ids: torch.Tensor) -> None:
        inputs = model.get_input_embeddings()(ids).requires_grad_(True)
        model(inputs_embeds=inputs, labels=ids).loss.backward()

    return work


def measured_peak(run: Trainable, ids: torch.Tensor, device: str) -> int:
    """Bytes that stand and what a step adds to them, with gradients there as in accumulation."""

    def step() -> None:
        run.model(input_ids=ids, labels=ids).loss.backward()
        run.optimizer.step()

    step()
    added = peak_bytes(step, device)
    standing = standing_bytes(run.model, run.optimizer)
    run.optimizer.zero_grad()
    return standing + added


def peak_flops(args: argparse.Namespace) -> float:
    """Operations a second of the device: as its data sheet says, or of a large matrix product measured here."""
    if args.gpu:
        return GPUS[args.gpu].flops
    size = 8192 if args.device == "cuda" else 1536
    one = torch.randn(size, size, dtype=args.dtype, device=args.device)
    seconds = time_in_turn({"product": lambda _: one @ one}, [one] * 12, args.clock)["product"]
    return 2 * size**3 / min(seconds)


def planned(
    shape: Shape, stage: int, args: argparse.Namespace, in_fp8: bool = False
) -> tuple[float, float, float]:
    """What the planner says of this stage: bytes at its peak, FLOPs a token, and those without what is made anew."""
    training = Training(
        rows=shape.vocab,
        base_rows=shape.base,
        step=OptimizerStep(args.length, args.batch, accumulation=1, processes=1),
        dtype=args.dtype,
        embeddings_dtype=args.dtype,
        checkpointing=args.checkpointing and STAGES[stage].backward_through_layers,
        optimizer="adamw_torch",
        in_fp8=in_fp8,
        lora_rank=RANK if STAGES[stage].internal_layers is Layers.QLORA else 0,
    )
    size = shape_of(shape.config().to_dict())
    needed = dataclasses.replace(training, checkpointing=False)
    return (
        memory(size, STAGES[stage], training).total,
        flops_per_token(size, STAGES[stage], training),
        flops_per_token(size, STAGES[stage], needed),
    )


def measure(shape: Shape, stage: int, model: nn.Module, peak: float, args: argparse.Namespace) -> dict:
    """One stage's line of the table."""
    if STAGES[stage].internal_layers is Layers.QLORA:
        runs = {OURS: prepare(adapted(model, stage), stage, ours_whole, shape, args.checkpointing)}
        works = {}
    else:
        methods = {OURS: ours_whole}
        if importlib.util.find_spec("axolotl") is not None:
            methods[AXOLOTL] = axolotl_ranges
        runs = {
            name: prepare(sharing_layers(model), stage, method, shape, args.checkpointing)
            for name, method in methods.items()
        }
        works = {BOUND: bound(sharing_layers(model), stage, args.checkpointing)}
    works |= {name: run.step for name, run in runs.items()}
    data = shape.batches(args.turns + 1, args.batch, args.length, args.device)
    seconds = time_in_turn(works, data, args.clock)
    peaks = {name: measured_peak(run, data[0], args.device) for name, run in runs.items()}
    planned_bytes, planned_flops, flops = planned(shape, stage, args)
    speed = {name: args.batch * args.length / statistics.median(each) for name, each in seconds.items()}
    found = {
        "device": args.name,
        "tokens_per_second": speed[OURS],
        "utilisation": speed[OURS] * flops / peak,
        "peak_bytes": peaks[OURS],
        "planned_bytes": planned_bytes,
        "planned_flops_per_token": planned_flops,
        "gpu_hours": STAGE_TOKENS / speed[OURS] / 3600 if args.device == "cuda" else None,
        "settings": {
            **vars(shape),
            "micro_batch": args.batch,
            "length": args.length,
            "checkpointing": args.checkpointing,
            "dtype": str(args.dtype).removeprefix("torch."),
            "lora_rank": RANK if STAGES[stage].internal_layers is Layers.QLORA else 0,
        },
    }
    if AXOLOTL in seconds:
        found["axolotl"] = {
            "tokens_per_second": speed[AXOLOTL],
            "utilisation": speed[AXOLOTL] * flops / peak,
            "peak_bytes": peaks[AXOLOTL],
            "speedup": ratio(seconds, AXOLOTL, OURS),
        }
    if BOUND in seconds:
        found["bound"] = {"tokens_per_second": speed[BOUND], "share": ratio(seconds, BOUND, OURS)}
    return found


def lines(found: dict[int, dict]) -> list[list[str]]:
    """The table's lines, for reading."""

    def quartiles(each: list[float]) -> str:
        low, middle, high = each
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    def gigabytes(count: float) -> str:
        return f"{count / 1e9:.3f}"

    rows = []
    for stage, each in found.items():
        other, least = each.get("axolotl"), each.get("bound")
        rows.append(
            [
                stage,
                f"{each['tokens_per_second']:,.0f}",
                f"{each['utilisation']:.1%}",
                quartiles(other["speedup"]) if other else "",
                quartiles(least["share"]) if least else "",
                gigabytes(each["peak_bytes"]),
                gigabytes(other["peak_bytes"]) if other else "",
                f"{gigabytes(each['planned_bytes'])} ({each['planned_bytes'] / each['peak_bytes'] - 1:+.1%})",
            ]
        )
    return rows


HEADER = [
    "stage",
    "tokens/s",
    "utilisation",
    "x Axolotl's speed",
    "of the bound's speed",
    "peak, GB",
    "Axolotl's peak, GB",
    "planned peak, GB",
]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--gpu", choices=list(GPUS), help="whose peak FLOPs to count by; else they are measured"
    )
    parser.add_argument("--stages", type=int, nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--hidden", type=int, help="width, and rows in proportion; SOLAR's own on a GPU")
    parser.add_argument("--layers", type=int, default=SOLAR["layers"])
    parser.add_argument("--batch", type=int, help="sequences of a step")
    parser.add_argument("--length", type=int, help="tokens of a sequence")
    parser.add_argument("--turns", type=int, default=11, help="timed steps of each")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, in all three")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU; 1 on a shared machine")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args(arguments)
    cuda = args.device == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here")
    args.hidden = args.hidden or (SOLAR["hidden"] if cuda else 128)
    args.batch = args.batch or (1 if cuda else 2)
    args.length = args.length or (4096 if cuda else 256)
    args.dtype = torch.bfloat16 if cuda else torch.float32
    args.name = torch.cuda.get_device_name() if cuda else "CPU"

    def clock() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    args.clock = clock
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    scale = SOLAR["hidden"] / args.hidden
    shape = Shape(args.hidden, args.layers, round(SOLAR["vocab"] / scale), round(SOLAR["base"] / scale))
    peak = peak_flops(args)
    print(
        f"{args.name}, {args.threads} threads, torch {torch.__version__}; {shape.layers} layers, {shape.hidden} wide, "
        f"{shape.vocab:,} rows of which {shape.vocab - shape.base:,} new, {args.dtype}, {args.batch} x {args.length} "
        f"tokens, gradient checkpointing {'on' if args.checkpointing else 'off'}. Utilisation is of "
        f"{peak / 1e12:.3g} TFLOPS, {'by the data sheet' if args.gpu else 'a matrix product measured first'}; medians "
        f"(and quartiles) of {args.turns} steps in turn.\n",
        flush=True,
    )
    found, model = {}, None
    for stage in args.stages:
        # QLoRA turns the layers into 4 bits, so its stages get a model each; a GPU holds one at a time.
        if model is None or STAGES[stage].internal_layers is Layers.QLORA:
            model = None
            gc.collect()
            model = build(shape, args)
        found[stage] = measure(shape, stage, model, peak, args)
        if STAGES[stage].internal_layers is Layers.QLORA:
            model = None
        print(f"stage {stage} measured", file=sys.stderr, flush=True)
    print(table(HEADER, lines(found)))
    if args.device == "cuda":
        hours = {stage: each["gpu_hours"] for stage, each in found.items()}
        print(
            f"At 419 M tokens a stage: {', '.join(f'{stage}: {each:.1f}' for stage, each in hours.items())}; together "
            f"{sum(hours.values()):.1f} GPU-hours.\n"
        )
    if args.json:
        print(json.dumps({str(stage): each for stage, each in found.items()}))


if __name__ == "__main__":
    main()
