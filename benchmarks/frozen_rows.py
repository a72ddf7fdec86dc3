"""Freezing rows: this project beside Axolotl's `unfrozen_parameters` ranges and PEFT's trainable tokens.

    python benchmarks/frozen_rows.py                 # the tables, as Markdown
    python benchmarks/frozen_rows.py --json          # and, as the last line, one JSON object

Prints four tables: rows that moved although they are frozen; bytes of optimiser state; step times, as
medians of ratios between steps that were run in turn in this one process; the cost of the fingerprint.
Every model has random weights and its parts in SOLAR's proportions, scaled down.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from eeve_axolotl import rows
from eeve_axolotl.stages import STAGES, Rows

EMBEDDING_STAGES = (1, 2, 3, 4, 5)
SOLAR = {"hidden": 4096, "layers": 48, "vocab": 40_960, "base": 32_000}
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
OURS, AXOLOTL, PEFT = "this project", "Axolotl's ranges", "PEFT's trainable tokens"


@dataclass(frozen=True)
class Shape:
    """A Llama of SOLAR's proportions: heads of 1/32 of the width, four to a key-value head, MLP 3.5 wide."""

    hidden: int
    layers: int
    vocab: int
    base: int

    def config(self) -> LlamaConfig:
        """The transformers config of this shape, untied."""
        heads = 32 if self.hidden >= 1024 else 8
        return LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 7 // 2,
            num_hidden_layers=self.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 4,
            tie_word_embeddings=False,
        )

    def model(self) -> LlamaForCausalLM:
        """A model in fp32 with random weights, the same at each call."""
        torch.manual_seed(0)
        return LlamaForCausalLM(self.config()).train()

    def meta_model(self) -> LlamaForCausalLM:
        """The model's shapes without storage."""
        with torch.device("meta"):
            return LlamaForCausalLM(self.config())

    def batches(self, count: int, size: int, length: int) -> list[torch.Tensor]:
        """`count` batches of random token ids, (size, length)."""
        generator = torch.Generator().manual_seed(1)
        return [torch.randint(0, self.vocab, (size, length), generator=generator) for _ in range(count)]


@dataclass
class Trainable:
    """A model prepared by one of the methods, its optimiser, and the way back to a plain state dict."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    weights: Callable[[], dict[str, torch.Tensor]]

    def step(self, ids: torch.Tensor) -> None:
        """One optimiser step on a batch."""
        self.model(input_ids=ids, labels=ids).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def adamw(model: nn.Module, decay: float = 0.1) -> torch.optim.Optimizer:
    """torch's AdamW over what requires a gradient."""
    trained = [each for each in model.parameters() if each.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-3, weight_decay=decay)


def ours(model: nn.Module, stage: int, base: int) -> Trainable:
    """This project's rows: a Parameter of their own."""
    frozen = rows.freeze(model, rows.resolve(model, STAGES[stage], base))
    return Trainable(model, frozen.protect(adamw(model)), model.state_dict)


def axolotl_ranges(model: nn.Module, stage: int, base: int) -> Trainable:
    """`unfrozen_parameters` as Axolotl applies it: its own function, and gradients of the inputs asked for."""
    from axolotl.utils.freeze import freeze_layers_except

    patterns = []
    for name, what in ((TABLE, STAGES[stage].input_embeddings), (HEAD, STAGES[stage].output_embeddings)):
        if what is not Rows.NONE:
            patterns.append(f"^{name}$" + (f"[{base}:]" if what is Rows.NEW else ""))
    freeze_layers_except(model, patterns)
    model.enable_input_require_grads()
    return Trainable(model, adamw(model), model.state_dict)


def peft_tokens(model: nn.Module, stage: int, base: int) -> Trainable:
    """PEFT's TrainableTokensConfig for new rows; a matrix of which all rows train is simply unfrozen."""
    from peft import TrainableTokensConfig, get_peft_model

    parts = {"embed_tokens": STAGES[stage].input_embeddings, "lm_head": STAGES[stage].output_embeddings}
    new = [name for name, what in parts.items() if what is Rows.NEW]
    model.requires_grad_(False)
    wrapped = model
    if new:
        tokens = list(range(base, model.config.vocab_size))
        wrapped = get_peft_model(model, TrainableTokensConfig(target_modules=new, token_indices=tokens))
    for name, module in (("embed_tokens", model.model.embed_tokens), ("lm_head", model.lm_head)):
        if parts[name] is Rows.ALL:
            module.weight.requires_grad_(True)

    def weights() -> dict[str, torch.Tensor]:
        return (wrapped.merge_and_unload() if new else model).state_dict()

    return Trainable(wrapped, adamw(wrapped), weights)


METHODS = {OURS: ours, AXOLOTL: axolotl_ranges, PEFT: peft_tokens}


def frozen_rows(shape: Shape, stage: int) -> dict[str, int]:
    """How many rows of each embedding matrix the stage freezes, counted from its first row."""
    counts = {Rows.NONE: shape.vocab, Rows.NEW: shape.base, Rows.ALL: 0}
    return {
        TABLE: counts[STAGES[stage].input_embeddings],
        HEAD: counts[STAGES[stage].output_embeddings],
    }


def count_moved(before: dict, after: dict, frozen: dict[str, int]) -> int:
    """Frozen rows of which at least one bit has changed."""
    moved = 0
    for name, count in frozen.items():
        one, other = (weights[name][:count].view(torch.int32) for weights in (before, after))
        moved += int((one != other).any(1).sum())
    return moved


def measure_moved_and_bytes(shape: Shape, steps: int) -> tuple[dict, dict]:
    """By stage and method: (frozen rows that moved, bytes of optimiser state) after `steps` of AdamW."""
    model = shape.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved, state_bytes = {}, {}
    for stage in EMBEDDING_STAGES:
        for method, prepare in METHODS.items():
            run = prepare(copy.deepcopy(model), stage, shape.base)
            for ids in shape.batches(steps, 2, 32):
                run.step(ids)
            state_bytes[stage, method] = rows.optimizer_state_bytes(run.optimizer)
            moved[stage, method] = count_moved(before, run.weights(), frozen_rows(shape, stage))
    return moved, state_bytes


def computed_bytes(shape: Shape, stage: int) -> tuple[int, int]:
    """AdamW's two fp32 moments, computed from shapes: (for the rows that train, for their whole matrices)."""
    plan = rows.resolve(shape.meta_model(), STAGES[stage], shape.base)
    trained = sum(matrix.trained for matrix in plan.matrices)
    whole = sum(matrix.total for matrix in plan.matrices if matrix.trained)
    return 2 * 4 * trained * shape.hidden, 2 * 4 * whole * shape.hidden


def time_in_turn(works: dict[str, Callable[[torch.Tensor], None]], data: Iterable) -> dict[str, list[float]]:
    """Seconds of each work on each batch. The order rotates; the first batch is a warm-up and not kept."""
    names, seconds = list(works), {name: [] for name in works}
    for turn, ids in enumerate(data):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            works[name](ids)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> list[float]:
    """Time of `one` / time of `other`, turn by turn: the lower quartile, the median, the upper quartile."""
    return statistics.quantiles((a / b for a, b in zip(seconds[one], seconds[other], strict=True)), n=4)


def shown(quartiles: list[float]) -> str:
    """A ratio for reading: its median, and the quartiles that say how noisy the machine was."""
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


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


def measure_step_times(shape: Shape, turns: int, size: int, length: int) -> dict[int, dict]:
    """By stage: seconds of a step of ours, and its ratios to the others and (stages 2 and 4) to the bound."""
    model, found = shape.model(), {}
    for stage in EMBEDDING_STAGES:
        runs = {name: prepare(copy.deepcopy(model), stage, shape.base) for name, prepare in METHODS.items()}
        works = {name: run.step for name, run in runs.items()}
        if not STAGES[stage].backward_through_layers:
            start = shape.base if STAGES[stage].output_embeddings is Rows.NEW else 0
            works["bound"] = bound(copy.deepcopy(model), start)
        seconds = time_in_turn(works, shape.batches(turns + 1, size, length))
        found[stage] = {
            "seconds": statistics.median(seconds[OURS]),
            **{name: ratio(seconds, OURS, name) for name in works if name != OURS},
        }
    return found


def measure_overhead(shape: Shape, turns: int, size: int, length: int) -> list[float]:
    """Per cent (quartiles) of a step that the mechanism costs: all rows of both matrices trained through it, beside
    the same in plain PyTorch. The two do the same work otherwise."""
    model = shape.model()
    plain = copy.deepcopy(model)
    plain.requires_grad_(False)
    plain.model.embed_tokens.weight.requires_grad_(True)
    plain.lm_head.weight.requires_grad_(True)
    works = {
        OURS: ours(copy.deepcopy(model), stage=3, base=0).step,
        "plain": Trainable(plain, adamw(plain), plain.state_dict).step,
    }
    seconds = time_in_turn(works, shape.batches(turns + 1, size, length))
    return [100 * (each - 1) for each in ratio(seconds, OURS, "plain")]


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
    plan = rows.resolve(model, STAGES[3], shape.base)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        rows.fingerprint(model, plan)
        seconds.append(time.perf_counter() - began)
    held = sum(each.numel() for each in model.parameters())
    median = statistics.median(seconds)
    return {
        "gigabytes": held * dtype.itemsize / 1e9,
        "seconds": median,
        "solar_gigabytes": everything * dtype.itemsize / 1e9,
        "solar_seconds_extrapolated": median * everything / held,
    }


def table(header: list[str], lines: Iterable[list]) -> str:
    """A Markdown table."""
    parts = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(str(each) for each in line) + " |" for line in parts) + "\n"


def size(count: int) -> str:
    """Bytes for reading."""
    return f"{count / 1e6:,.1f} MB"


def print_moved(shape: Shape, steps: int, moved: dict) -> None:
    print(
        f"Frozen rows that moved (any bit) in {steps} steps of AdamW, lr 1e-3, weight decay 0.1; both "
        f"matrices together, {shape.vocab:,} rows each, {shape.hidden} wide:\n"
    )
    print(
        table(
            ["stage", "frozen rows", *METHODS],
            [
                [stage, f"{sum(frozen_rows(shape, stage).values()):,}"]
                + [f"{moved[stage, method]:,}" for method in METHODS]
                for stage in EMBEDDING_STAGES
            ],
        )
    )


def print_bytes(shape: Shape, measured: dict) -> None:
    solar = Shape(**SOLAR)
    print(
        f"AdamW's state: measured on the same model ({shape.hidden} wide, fp32), and computed from SOLAR's "
        f"shapes ({solar.hidden} wide, moments in fp32):\n"
    )
    lines = []
    for stage in EMBEDDING_STAGES:
        small = [size(measured[stage, method]) for method in (OURS, AXOLOTL)]
        lines.append([stage, *small, *map(size, computed_bytes(solar, stage))])
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
        bound = shown(each["bound"]) if "bound" in each else ""
        lines.append([stage, f"{each['seconds']:.3f} s", shown(each[AXOLOTL]), shown(each[PEFT]), bound])
    header = ["ours / full matrix masked (Axolotl's ranges)", "ours / PEFT", "ours / bound"]
    print(table(["stage", "ours", *header], lines))


def print_fingerprint(found: dict[str, dict]) -> None:
    print("Cost of one fingerprint (a stage takes two), timed on matrices of SOLAR's shapes:\n")
    print(
        table(
            ["weights", "timed on", "seconds", "SOLAR's 10.7 B parameters, extrapolated"],
            [
                [
                    name,
                    f"{each['gigabytes']:.1f} GB",
                    f"{each['seconds']:.2f}",
                    f"{each['solar_seconds_extrapolated']:.1f} s for {each['solar_gigabytes']:.1f} GB",
                ]
                for name, each in found.items()
            ],
        )
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=64, help="width for rows moved and bytes")
    parser.add_argument("--steps", type=int, default=5, help="optimiser steps for rows moved")
    parser.add_argument("--timing-hidden", type=int, default=128, help="width for step times")
    parser.add_argument("--timing-layers", type=int, default=48)
    parser.add_argument(
        "--timing-vocab", choices=["solar", "scaled", "both"], default="both",
        help="rows for step times: SOLAR's 40,960, or as many fewer as the model is narrower",
    )  # fmt: skip
    parser.add_argument("--turns", type=int, default=25, help="timed steps of each method")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument(
        "--threads",
        type=int,
        help="of torch; 1 on a shared machine, where one preempted thread stalls the others",
    )
    parser.add_argument("--fingerprint-gb", type=float, default=1.0)
    parser.add_argument(
        "--json", nargs="?", const="-", help="print one JSON object as the last line, or write it to a file"
    )
    return parser.parse_args(arguments)


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


def machine() -> str:
    """The machine and the versions, in words."""
    return (
        f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"Machine: {machine()}\n", flush=True)

    shape = Shape(args.hidden, 2, SOLAR["vocab"], SOLAR["base"])
    moved, state_bytes = measure_moved_and_bytes(shape, args.steps)
    print_moved(shape, args.steps, moved)
    print_bytes(shape, state_bytes)

    times, overhead = {}, {}
    for name, timed in timing_shapes(args).items():
        times[name] = measure_step_times(timed, args.turns, args.batch, args.length)
        overhead[name] = measure_overhead(timed, args.turns, args.batch, args.length)
        print_step_times(timed, args, times[name])
        low, middle, high = overhead[name]
        print(
            f"Cost of the mechanism beside plain PyTorch, all rows trained: {middle:+.1f} % of a step "
            f"(quartiles {low:+.1f} to {high:+.1f}).\n"
        )

    prints = {
        str(dtype).removeprefix("torch."): measure_fingerprint(args.fingerprint_gb, dtype)
        for dtype in (torch.bfloat16, torch.float32)
    }
    print_fingerprint(prints)
    if args.json:
        first = next(iter(times))
        report(args.json, moved, state_bytes, times, overhead, times[first], overhead[first], prints)


def report(where, moved, state_bytes, times, overhead, headline, headline_overhead, prints) -> None:
    """One JSON object: as the last line (`where` is "-"), or into a file."""

    def by_method(values: dict) -> dict:
        return {
            method: {f"stage {stage}": values[stage, method] for stage in EMBEDDING_STAGES}
            for method in METHODS
        }

    found = {
        "machine": machine(),
        "rows_moved": {"one process": {"adamw": by_method(moved)}},
        "optimizer_bytes": by_method(state_bytes),
        **{f"stage{stage}_over_bound": headline[stage]["bound"][1] for stage in (2, 4)},
        **{f"stage{stage}_speedup": 1 / headline[stage][AXOLOTL][1] for stage in (2, 4)},
        "overhead_percent": headline_overhead[1],
        "step_times": times,
        "overhead_percent_by_shape": overhead,
        "fingerprint": prints,
    }
    if where == "-":
        print(json.dumps(found))
    else:
        with open(where, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
