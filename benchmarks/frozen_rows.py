"""Freezing rows: this project beside Axolotl's `unfrozen_parameters` ranges and PEFT's trainable tokens.

    python benchmarks/frozen_rows.py                 # the tables, as Markdown
    python benchmarks/frozen_rows.py --json          # and, as the last line, one JSON object
    python benchmarks/frozen_rows.py --device cuda   # AdamW in one process at SOLAR's true shape, on a GPU

Prints: rows that moved although they are frozen, and bytes of optimiser state, for each stage with AdamW, and
for each optimiser under each way of sharding (two gloo processes); step times, as medians of ratios between
steps that ran in turn; what the mechanism itself costs; the cost of the fingerprint. On a CPU seconds are those
of CPU time on one thread: other work on the machine slows the clock on the wall more than it slows these.
Every model has random weights and its parts in SOLAR's proportions, scaled down.
"""

from __future__ import annotations

import argparse
import copy
import gc
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
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
import transformers
from transformers import LlamaForCausalLM

from benchmarks import frozen_rows_matrix as matrix
from benchmarks.freezing_methods import (
    AXOLOTL,
    EMBEDDING_STAGES,
    HEAD,
    METHODS,
    OURS,
    PEFT,
    SOLAR,
    TABLE,
    Frozen,
    Shape,
    count_moved,
    frozen_rows,
    ours,
    ratio,
    table,
    time_in_turn,
    with_adamw,
)
from eeve_axolotl import rows
from eeve_axolotl.stages import STAGES, Rows
from tests.rows import optimizers

PARTS = ("moved", "matrix", "times", "overhead", "fingerprint")


def clock_of(device: str) -> Callable[[], float]:
    """Seconds: of this process's CPU time, or on a GPU of the wall once it has nothing left to do."""
    if device == "cpu":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronised


def train_one(
    shape: Shape, stage: int, method: str, batches: list[torch.Tensor], dtype=torch.float32
) -> dict[str, float]:
    """A few steps of AdamW: frozen rows that moved, bytes of optimiser state, median seconds of a step, and on a
    GPU the peak of its memory in bytes."""
    device = batches[0].device.type
    model = shape.model(dtype, device)
    before = {name: model.state_dict()[name].to("cpu", copy=True) for name in (TABLE, HEAD)}
    if device == "cuda":
        gc.collect()  # what ran before, PEFT's wrappers among it, refers to itself
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = with_adamw(METHODS[method](model, stage, shape.base))
    seconds = time_in_turn({method: run.step}, batches, clock_of(device))[method]
    found = {
        "bytes": rows.optimizer_state_bytes(run.optimizer),
        "seconds": statistics.median(seconds),
        "peak": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }
    if method == OURS and not STAGES[stage].backward_through_layers:
        start = shape.base if STAGES[stage].output_embeddings is Rows.NEW else 0
        seconds = time_in_turn({"bound": bound(model, start)}, batches, clock_of(device))["bound"]
        found["bound"] = statistics.median(seconds)
    found["moved"] = count_moved(before, run.weights(), frozen_rows(shape, stage))[0]
    return found


def train_each(shape: Shape, batches: list[torch.Tensor], dtype=torch.float32) -> dict[tuple, dict]:
    """By stage and method, what `train_one` found; one model at a time is in memory."""
    return {
        (stage, method): train_one(shape, stage, method, batches, dtype)
        for stage in EMBEDDING_STAGES
        for method in METHODS
    }


def computed_bytes(shape: Shape, stage: int) -> tuple[int, int]:
    """AdamW's two fp32 moments, computed from shapes: (for the rows that train, for their whole matrices)."""
    mask = rows.row_mask(shape.meta_model(), STAGES[stage], shape.base)
    trained = sum(each.trained for each in mask.matrices)
    whole = sum(each.total for each in mask.matrices if each.trained)
    return 2 * 4 * trained * shape.hidden, 2 * 4 * whole * shape.hidden


def bound(model: LlamaForCausalLM, start: int) -> Callable[[torch.Tensor], None]:
    """The least that stages 2 and 4 can do: a no-grad forward of the internal layers, then the head's forward
    and the loss, and their gradients of the rows from `start`. No optimiser, no autograd through the head."""

    def work(ids: torch.Tensor) -> None:
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state
            logits = F.linear(hidden, model.lm_head.weight)
        logits.requires_grad_(True)
        model.loss_function(logits=logits, labels=ids, vocab_size=logits.shape[-1]).backward()
        grad = logits.grad.flatten(0, 1)[:, start:]
        _ = grad.t() @ hidden.flatten(0, 1)

    return work


def measure_step_times(shape: Shape, batches: list[torch.Tensor]) -> dict[int, dict]:
    """By stage: seconds of a step of ours, and its ratios to the others and (stages 2 and 4) to the bound."""
    model, found = shape.model(), {}
    for stage in EMBEDDING_STAGES:
        works = {
            name: with_adamw(prepare(copy.deepcopy(model), stage, shape.base)).step
            for name, prepare in METHODS.items()
        }
        if not STAGES[stage].backward_through_layers:
            start = shape.base if STAGES[stage].output_embeddings is Rows.NEW else 0
            works["bound"] = bound(copy.deepcopy(model), start)
        seconds = time_in_turn(works, batches, clock_of("cpu"))
        found[stage] = {
            "seconds": statistics.median(seconds[OURS]),
            **{name: ratio(seconds, OURS, name) for name in works if name != OURS},
        }
    return found


def embeddings_alone(model: LlamaForCausalLM) -> Callable[[torch.Tensor], None]:
    """Forward and backward of the table and of the head with the loss, on hidden states that are made up: what
    the mechanism touches of a step, and nothing else."""
    trained = [each for each in model.parameters() if each.requires_grad]
    through = model.model.embed_tokens(torch.zeros(1, 1, dtype=torch.long)).requires_grad

    def work(ids: torch.Tensor) -> None:
        torch.manual_seed(0)
        hidden = torch.randn(*ids.shape, model.config.hidden_size)
        embedded = model.model.embed_tokens(ids)
        if through:
            embedded.backward(hidden)
        logits = model.lm_head(hidden.requires_grad_(through))
        model.loss_function(logits=logits, labels=ids, vocab_size=logits.shape[-1]).backward()
        for each in trained:
            each.grad = None

    return work


def plain(model: LlamaForCausalLM, stage: int) -> Frozen:
    """Whole matrices of a stage trained in plain PyTorch: nothing of this project."""
    model.requires_grad_(False)
    if STAGES[stage].input_embeddings is not Rows.NONE:
        model.model.embed_tokens.weight.requires_grad_(True)
    if STAGES[stage].output_embeddings is not Rows.NONE:
        model.lm_head.weight.requires_grad_(True)
    return Frozen(model, lambda optimizer: optimizer, lambda state: state)


def measure_overhead(shape: Shape, turns: int, size: int, length: int) -> dict[int, dict]:
    """By stage, what masks, protection and hooks add to a step, in per cent, with a 95 % interval.

    All rows of the stage's matrices train through the mechanism, beside the same in plain PyTorch, so that the
    two do the same work otherwise. The difference is timed without the internal layers, which both have alike
    and whose noise would drown it, and then set against a whole step in plain PyTorch.
    """
    alone = Shape(shape.hidden, 1, shape.vocab, shape.base).model()
    whole = shape.model()
    found = {}
    for stage in (1, 2, 3):
        works = {
            OURS: embeddings_alone(ours(copy.deepcopy(alone), stage, base=0).model),
            "plain": embeddings_alone(plain(copy.deepcopy(alone), stage).model),
        }
        seconds = time_in_turn(works, shape.batches(turns + 1, size, length), clock_of("cpu"))
        added = [one - other for one, other in zip(seconds[OURS], seconds["plain"], strict=True)]
        step = with_adamw(plain(copy.deepcopy(whole), stage)).step
        steps = time_in_turn({"plain": step}, shape.batches(10, size, length), clock_of("cpu"))["plain"]
        of_a_step = 100 / statistics.median(steps)
        found[stage] = {
            "percent": statistics.median(added) * of_a_step,
            "interval": [each * of_a_step for each in interval_of_median(added)],
            "milliseconds": 1000 * statistics.median(added),
            "step_seconds": statistics.median(steps),
        }
    return found


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """95 % confidence interval of the median, by its order statistics (a sign test's): no distribution assumed."""
    ordered, half = sorted(values), 1.96 * len(values) ** 0.5 / 2
    low, high = int(len(values) / 2 - half), int(len(values) / 2 + half)
    return ordered[max(0, low)], ordered[min(len(values) - 1, high)]


def measure_fingerprint(gigabytes: float, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of one fingerprint of about `gigabytes` of SOLAR's own matrices, and scaled up to all of them."""
    everything = sum(each.numel() for each in Shape(**SOLAR).meta_model().parameters())
    embeddings = 2 * SOLAR["vocab"] * SOLAR["hidden"]
    a_layer = (everything - embeddings) / SOLAR["layers"]
    layers = max(1, round((gigabytes * 1e9 / dtype.itemsize - embeddings) / a_layer))
    shape = Shape(**{**SOLAR, "layers": layers})
    model = shape.meta_model().to(dtype).to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(1)  # the bits do not matter, but the pages must exist
    mask = rows.row_mask(model, STAGES[3], shape.base)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        rows.fingerprint(model, mask)
        seconds.append(time.process_time() - began)
    held = sum(each.numel() for each in model.parameters())
    median = statistics.median(seconds)
    return {
        "gigabytes": held * dtype.itemsize / 1e9,
        "seconds": median,
        "solar_gigabytes": everything * dtype.itemsize / 1e9,
        "solar_seconds_extrapolated": median * everything / held,
    }


def shown(quartiles: list[float]) -> str:
    """A ratio for reading: its median, and the quartiles that say how noisy the machine was."""
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def megabytes(count: int) -> str:
    """Bytes for reading."""
    return f"{count / 1e6:,.1f} MB"


def print_moved(shape: Shape, steps: int, found: dict[tuple, dict]) -> None:
    print(
        f"Frozen rows that moved (any bit) in {steps} steps of AdamW, lr 1e-3, weight decay 0.1; both "
        f"matrices together, {shape.vocab:,} rows each, {shape.hidden} wide:\n"
    )
    lines = [
        [stage, f"{sum(frozen_rows(shape, stage).values()):,}"]
        + [f"{found[stage, method]['moved']:,}" for method in METHODS]
        for stage in EMBEDDING_STAGES
    ]
    print(table(["stage", "frozen rows", *METHODS], lines))
    solar = Shape(**SOLAR)
    print(
        f"AdamW's state: measured on the same model ({shape.hidden} wide), and computed from SOLAR's "
        f"shapes ({solar.hidden} wide, moments in fp32):\n"
    )
    lines = []
    for stage in EMBEDDING_STAGES:
        measured = [found[stage, method]["bytes"] for method in (OURS, AXOLOTL)]
        lines.append([stage, *map(megabytes, [*measured, *computed_bytes(solar, stage)])])
    header = [
        "ours, measured",
        "full matrix, measured",
        "ours, SOLAR computed",
        "full matrix, SOLAR computed",
    ]
    print(table(["stage", *header], lines))


def print_step_times(shape: Shape, args: argparse.Namespace, found: dict) -> None:
    print(
        f"Step time (forward, backward, AdamW), {shape.layers} layers, {shape.hidden} wide, {shape.vocab:,} "
        f"rows of which {shape.vocab - shape.base:,} new, {args.batch} x {args.length} tokens; medians (and "
        f"quartiles) of {args.turns} steps run in turn. The bound is a no-grad forward of the internal layers plus the "
        "head's forward and backward, without an optimiser:\n"
    )
    lines = []
    for stage, each in found.items():
        over_bound = shown(each["bound"]) if "bound" in each else ""
        lines.append([stage, f"{each['seconds']:.3f} s", shown(each[AXOLOTL]), shown(each[PEFT]), over_bound])
    header = ["ours / full matrix masked (Axolotl's ranges)", "ours / PEFT", "ours / bound"]
    print(table(["stage", "ours", *header], lines))


def print_overhead(shape: Shape, turns: int, found: dict[int, dict]) -> None:
    print(
        f"What masks, protection and hooks add to a step in plain PyTorch, all {shape.vocab:,} rows trained, medians "
        f"of {turns} paired differences (95 % interval):\n"
    )
    lines = []
    for stage, each in found.items():
        low, high = each["interval"]
        lines.append(
            [
                stage,
                f"{each['milliseconds']:+.2f} ms",
                f"{1000 * each['step_seconds']:,.0f} ms",
                f"{each['percent']:+.2f} % ({low:+.2f} to {high:+.2f})",
            ]
        )
    print(table(["matrices of stage", "added", "a whole step", "of a step"], lines))


def print_fingerprint(found: dict[str, dict]) -> None:
    print("Cost of one fingerprint (a stage takes two), timed on matrices of SOLAR's shapes:\n")
    lines = [
        [
            name,
            f"{each['gigabytes']:.1f} GB",
            f"{each['seconds']:.2f}",
            f"{each['solar_seconds_extrapolated']:.1f} s for {each['solar_gigabytes']:.1f} GB",
        ]
        for name, each in found.items()
    ]
    print(table(["weights", "timed on", "seconds", "SOLAR's 10.7 B parameters, extrapolated"], lines))


def print_on_gpu(found: dict[tuple, dict]) -> None:
    print("On the GPU, one model at a time, medians of the steps:\n")
    lines = []
    for stage in EMBEDDING_STAGES:
        each = [found[stage, method] for method in METHODS]
        mine = each[0]
        over_bound = f"{mine['seconds'] / mine['bound']:.2f}" if "bound" in mine else ""
        beside = [f"{mine['seconds'] / one['seconds']:.2f}" for one in each[1:]]
        peaks = [f"{one['peak'] / 1e9:.1f} GB" for one in each]
        lines.append([stage, *peaks, f"{1000 * mine['seconds']:.0f} ms", *beside, over_bound])
    header = [*(f"peak, {method}" for method in METHODS), "a step of ours"]
    print(table(["stage", *header, "ours / Axolotl's ranges", "ours / PEFT", "ours / bound"], lines))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (CPU)")
    parser.add_argument("--hidden", type=int, help="width for rows moved (64; 4096 on a GPU)")
    parser.add_argument("--layers", type=int, help="layers for rows moved (2; 48 on a GPU)")
    parser.add_argument("--steps", type=int, default=5, help="optimiser steps for rows moved, with AdamW")
    parser.add_argument("--matrix-steps", type=int, default=8, help="and with each optimiser")
    parser.add_argument(
        "--optimizers", nargs="+", metavar="NAME", help="of the matrix; by default all that are installed"
    )
    parser.add_argument("--ways", nargs="+", choices=matrix.WAYS, default=matrix.WAYS, help="of the matrix")
    parser.add_argument("--timing-hidden", type=int, default=128, help="width for step times")
    parser.add_argument("--timing-layers", type=int, default=48)
    parser.add_argument(
        "--timing-vocab", choices=["solar", "scaled", "both"], default="scaled",
        help="rows for step times: SOLAR's 40,960, or as many fewer as the model is narrower",
    )  # fmt: skip
    parser.add_argument("--turns", type=int, default=15, help="timed steps of each method")
    parser.add_argument("--overhead-turns", type=int, default=200)
    parser.add_argument("--batch", type=int, help="sequences of a step (2; 1 on a GPU)")
    parser.add_argument("--length", type=int, help="their tokens (256; 2048 on a GPU)")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--fingerprint-gb", type=float, default=1.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    args = parser.parse_args(arguments)
    small = args.device == "cpu"
    args.hidden, args.layers = args.hidden or (64 if small else 4096), args.layers or (2 if small else 48)
    args.batch, args.length = args.batch or (2 if small else 1), args.length or (256 if small else 2048)
    known = [name for name in optimizers.ALL if not optimizers.missing(name)]
    args.optimizers = args.optimizers or known
    if unknown := set(args.optimizers) - set(known):
        parser.error(f"not installed, or not one that Axolotl offers: {', '.join(sorted(unknown))}")
    return args


def timing_shapes(args: argparse.Namespace) -> dict[str, Shape]:
    """By name, the shapes whose steps are timed."""
    solar = Shape(args.timing_hidden, args.timing_layers, SOLAR["vocab"], SOLAR["base"])
    narrower = SOLAR["hidden"] / args.timing_hidden
    scaled = Shape(
        args.timing_hidden,
        args.timing_layers,
        round(SOLAR["vocab"] / narrower),
        round(SOLAR["base"] / narrower),
    )
    shapes = {"scaled": scaled, "solar": solar}
    return shapes if args.timing_vocab == "both" else {args.timing_vocab: shapes[args.timing_vocab]}


def machine(device: str) -> str:
    """The machine and the versions, in words."""
    gpu = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    return (
        f"{gpu}{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )


def on_gpu(args: argparse.Namespace) -> dict:
    """SOLAR's true shape in bf16: rows moved, bytes, step times and peak memory, by stage and method."""
    shape = Shape(args.hidden, args.layers, SOLAR["vocab"], SOLAR["base"])
    found = train_each(shape, shape.batches(args.steps, args.batch, args.length, "cuda"), torch.bfloat16)
    print_moved(shape, args.steps, found)
    print_on_gpu(found)
    return {
        **by_stage_for_json(found),
        "rows_moved": {
            "one process": {"adamw_torch": sum(found[s, OURS]["moved"] for s in EMBEDDING_STAGES)}
        },
        "optimizer_bytes": {"one process": {"adamw_torch": found[3, OURS]["bytes"]}},
        **{f"stage{s}_over_bound": found[s, OURS]["seconds"] / found[s, OURS]["bound"] for s in (2, 4)},
        **{f"stage{s}_speedup": found[s, AXOLOTL]["seconds"] / found[s, OURS]["seconds"] for s in (2, 4)},
    }


def on_cpu(args: argparse.Namespace) -> dict:
    """Whatever `--only` names, printed as it is measured; the figures, for JSON."""
    result: dict = {}
    if "moved" in args.only:
        shape = Shape(args.hidden, args.layers, SOLAR["vocab"], SOLAR["base"])
        found = train_each(shape, shape.batches(args.steps, 2, 32))
        print_moved(shape, args.steps, found)
        result.update(by_stage_for_json(found))
    if "matrix" in args.only:
        found = matrix.measure_all(args.ways, args.optimizers, args.matrix_steps)
        matrix.print_matrix(found, args.matrix_steps)
        result.update(matrix.for_json(found))
    shapes = timing_shapes(args)
    if "times" in args.only:
        times = {}
        for name, shape in shapes.items():
            batches = shape.batches(args.turns + 1, args.batch, args.length)
            times[name] = measure_step_times(shape, batches)
            print_step_times(shape, args, times[name])
        first = next(iter(times.values()))
        result.update({f"stage{stage}_over_bound": first[stage]["bound"][1] for stage in (2, 4)})
        result.update({f"stage{stage}_speedup": 1 / first[stage][AXOLOTL][1] for stage in (2, 4)})
        result["step_times"] = times
    if "overhead" in args.only:
        shape = next(iter(shapes.values()))
        found = measure_overhead(shape, args.overhead_turns, args.batch, args.length)
        print_overhead(shape, args.overhead_turns, found)
        result["overhead_percent"] = max(each["percent"] for each in found.values())
        result["overhead_by_stage"] = found
    if "fingerprint" in args.only:
        result["fingerprint"] = {
            str(dtype).removeprefix("torch."): measure_fingerprint(args.fingerprint_gb, dtype)
            for dtype in (torch.bfloat16, torch.float32)
        }
        print_fingerprint(result["fingerprint"])
    return result


def by_stage_for_json(found: dict[tuple, dict]) -> dict:
    return {
        "by_stage": {
            method: {f"stage {stage}": found[stage, method] for stage in EMBEDDING_STAGES}
            for method in METHODS
        }
    }


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "frozen_rows: --device cuda needs an NVIDIA GPU with about 60 GB for SOLAR's true shape, and torch sees "
            "none; leave the option out to measure on the CPU"
        )
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    print(f"Machine: {machine(args.device)}\n", flush=True)
    result = on_cpu(args) if args.device == "cpu" else on_gpu(args)
    if args.json:
        print(json.dumps({"machine": machine(args.device), **result}))


if __name__ == "__main__":
    main()
