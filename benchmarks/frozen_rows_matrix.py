"""Every optimiser under every way of sharding: a part of frozen_rows.py, and the worker that it starts.

    python -m torch.distributed.run --nproc-per-node 2 benchmarks/frozen_rows_matrix.py WAYS OPTIMIZERS STEPS out.json

One model, data and number of steps for all three methods, which step in turn. What a method cannot do is told
with the reason it gave. Stage 3: new rows of both matrices train, the others are frozen.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist

from benchmarks.freezing_methods import (
    HEAD,
    METHODS,
    OURS,
    TABLE,
    Frozen,
    Shape,
    Trainable,
    count_moved,
    frozen_rows,
    table,
)
from eeve_axolotl import rows
from tests.rows import optimizers, ways

ALONE = "one process"
WAYS = [ALONE, "ddp", *ways.FSDP2, *ways.ZERO]
STAGE, BATCH, LENGTH = 3, 4, 32
SHAPE = Shape(hidden=64, layers=2, vocab=1280, base=1000)


class ZeroTrainable(Trainable):
    """`model` is a DeepSpeed engine, which steps by itself."""

    def step(self, ids: torch.Tensor) -> None:
        ways.zero_step(self.model, self.model(input_ids=ids, labels=ids).loss)


def trainable(way: str, frozen: Frozen, optimizer: str, folder: str) -> Trainable:
    """A prepared model, wrapped or sharded, with its optimiser."""

    def build(mesh=None):
        return frozen.protect(optimizers.build(optimizer, frozen.model, folder, lr=1e-3, mesh=mesh))

    def plain(state: dict | None) -> dict | None:
        return None if state is None else frozen.plain(state)

    if way in ways.FSDP2:
        model = ways.shard(frozen.model, **ways.FSDP2[way])
        mesh = next(model.parameters()).device_mesh
        return Trainable(model, build(mesh), lambda: plain(ways.gathered(model)))
    if way in ways.ZERO:
        import deepspeed

        config = ways.zero_config(ways.ZERO[way])
        with contextlib.redirect_stdout(None):
            engine, held, _, _ = deepspeed.initialize(model=frozen.model, optimizer=build(), config=config)
        return ZeroTrainable(engine, held, lambda: plain(ways.zero_weights(engine)))
    model = torch.nn.parallel.DistributedDataParallel(frozen.model) if way == "ddp" else frozen.model
    return Trainable(model, build(), lambda: plain(frozen.model.state_dict()))


def measure(way: str, optimizer: str, steps: int) -> dict[str, dict]:
    """By method: rows moved, bytes of optimiser state on this rank, seconds by step; or why there is nothing."""
    model = SHAPE.model()
    before = {name: model.state_dict()[name].clone() for name in (TABLE, HEAD)}
    found, runs = {}, {}
    with tempfile.TemporaryDirectory() as folder, torch.compiler.set_stance("force_eager"):
        for method, prepare in METHODS.items():
            with _told(found, method):
                frozen = prepare(copy.deepcopy(model), STAGE, SHAPE.base)
                runs[method] = trainable(way, frozen, optimizer, folder)
        seconds = {method: [] for method in runs}
        for ids in SHAPE.batches(steps, BATCH, LENGTH):
            if dist.is_initialized():
                ids = ids.chunk(dist.get_world_size())[dist.get_rank()]
            for method in list(runs):
                began = time.perf_counter()
                with _told(found, method):
                    runs[method].step(ids)
                if method in found:
                    del runs[method]
                seconds[method].append(time.perf_counter() - began)
    for method, run in runs.items():
        with _told(found, method):
            state_bytes, after = rows.optimizer_state_bytes(run.optimizer), run.weights()
            if after is not None:
                moved, trained = count_moved(before, after, frozen_rows(SHAPE, STAGE))
                found[method] = {
                    "moved": moved,
                    "trained": trained,
                    "bytes": state_bytes,
                    "seconds": seconds[method][1:],
                }
    return found


@contextlib.contextmanager
def _told(found: dict, method: str):
    """Notes why a method cannot do something, in place of its figures."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        found[method] = {"why": f"{type(error).__name__}: {first[:160]}"}


def measure_all(chosen_ways: list[str], chosen_optimizers: list[str], steps: int) -> dict[str, dict]:
    """By way and optimiser, what `measure` found: here, or in two processes for each way of sharding."""
    found = {}
    together = [
        [way for way in chosen_ways if way != ALONE and (way in ways.ZERO) == zero] for zero in (False, True)
    ]
    for group in filter(None, together):  # DeepSpeed starts the processes in its own way
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "found.json")
            arguments = [",".join(group), ",".join(chosen_optimizers), str(steps), str(out)]
            done = ways.launch(Path(__file__), *arguments, timeout=1200)
            if done.returncode or not out.exists():
                raise SystemExit(
                    f"frozen_rows: {', '.join(group)} ended with an error:\n{done.stderr[-3000:]}"
                )
            found.update(json.loads(out.read_text()))
    if ALONE in chosen_ways:
        found[ALONE] = {name: measure(ALONE, name, steps) for name in chosen_optimizers}
    return {way: found[way] for way in chosen_ways}


def print_matrix(found: dict[str, dict], steps: int) -> None:
    """The grids of rows moved, bytes and step times, and the reasons for what is missing."""
    reasons: list[str] = []
    names = list(next(iter(found.values())))

    def grid(title: str, cell) -> None:
        print(title + "\n")
        print(
            table(
                ["optimiser", *found], [[name, *(cell(found[way][name]) for way in found)] for name in names]
            )
        )

    def missing(each: dict) -> str:
        if each["why"] not in reasons:
            reasons.append(each["why"])
        return f"n/a ({reasons.index(each['why']) + 1})"

    def shown(each: dict, value) -> str:
        return missing(each) if "why" in each else value(each)

    def moved(by_method: dict) -> str:
        return " · ".join(
            shown(by_method[method], lambda each: f"{each['moved']:,}" + ("" if each["trained"] else "*"))
            for method in METHODS
        )

    def state_bytes(by_method: dict) -> str:
        return " · ".join(
            shown(by_method[method], lambda each: f"{each['bytes'] / 1000:,.0f}") for method in METHODS
        )

    def step_times(by_method: dict) -> str:
        if "why" in by_method[OURS]:
            return "n/a"
        parts = []
        for method in METHODS:
            if method != OURS:
                each = by_method[method]
                parts.append("n/a" if "why" in each else f"{median_ratio(by_method[OURS], each):.2f}")
        return " · ".join(parts)

    total = sum(frozen_rows(SHAPE, STAGE).values())
    three = "this project · Axolotl's ranges · PEFT"
    grid(
        f"Frozen rows that moved, of {total:,} ({three}), in {steps} steps of stage {STAGE}, lr 1e-3, weight decay 0.1; "
        f"{SHAPE.layers} layers, {SHAPE.hidden} wide, two processes but for the first column (* none of the rows "
        "that train moved either):",
        moved,
    )
    grid(f"Optimiser state of a process, kB ({three}):", state_bytes)
    grid(
        "Step time, this project / Axolotl's ranges · this project / PEFT, medians of the same steps:",
        step_times,
    )
    for number, why in enumerate(reasons, 1):
        print(f"({number}) {why}  ")
    print()


def median_ratio(one: dict, other: dict) -> float:
    """Seconds of a step of one method over those of another, the median of the paired steps."""
    return statistics.median(a / b for a, b in zip(one["seconds"], other["seconds"], strict=True))


def for_json(found: dict[str, dict]) -> dict:
    """`rows_moved` and `optimizer_bytes` by way and optimiser; the other methods' and the step times beside."""

    def pick(method: str, key: str) -> dict:
        return {
            way: {name: each[method].get(key, each[method].get("why")) for name, each in by_name.items()}
            for way, by_name in found.items()
        }

    others = [method for method in METHODS if method != OURS]
    return {
        "rows_moved": pick(OURS, "moved"),
        "optimizer_bytes": pick(OURS, "bytes"),
        "others": {
            method: {"rows_moved": pick(method, "moved"), "optimizer_bytes": pick(method, "bytes")}
            for method in others
        },
        "step_time_ratio": {
            method: {
                way: {
                    name: median_ratio(each[OURS], each[method])
                    for name, each in by_name.items()
                    if "why" not in each[OURS] and "why" not in each[method]
                }
                for way, by_name in found.items()
            }
            for method in others
        },
    }


def main(chosen_ways: str, names: str, steps: str, out: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    group = chosen_ways.split(",")
    with ways.two_processes(deepspeed=group[0] in ways.ZERO):
        found = {way: {name: measure(way, name, int(steps)) for name in names.split(",")} for way in group}
        if dist.get_rank() == 0:
            Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
    ways.leave()
