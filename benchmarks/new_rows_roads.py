"""What becomes of new rows when they are trained: the roads of benchmarks/new_rows.py, from a start through the row stages.

    python benchmarks/new_rows_roads.py --base smollm2 --directory DIR [--smollm2 FOLDER] [--roads NAME ...]

A road is a start for the output rows, row stages in an order, and a learning rate for the input rows and one for the output
rows. Both are chosen on the part of the text for choosing, for each road by itself, with a seed that is not reported.
Everything that a road does is counted in FLOPs: also the pass that a start reads text with, and the base's forward pass
where input rows are distilled from it. Finished runs are lines of results/new_rows.jsonl, and are not made again; its
`--report` prints them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.nn.functional import kl_div, log_softmax, mse_loss

from benchmarks import new_rows
from benchmarks.ablation_bases import READING, Base, batches, cost_of_reading, load, read_rows
from benchmarks.ablation_train import cost_of, measure, next_token, prepared, steps_through
from eeve_axolotl.embeddings import subwords
from eeve_axolotl.stages import STAGES

STEPS = {"small": 120, "smollm2": 60}
SEEDS = 3
CHOICE_SEED = 97
ENGLISH = 1 / 6  # of the text's bytes
FLOOR = 0.1  # of a rate, at a phase's end
CURVE = 6  # points of a run's curve
INPUT_RATES = (3e-3, 1e-3)
OUTPUT_RATES = (1e-3, 3e-4, 1e-4)


@dataclass(frozen=True)
class Road:
    """Where the output rows start, and what is done in which order.

    A phase is a stage's number, `distil` (input rows learn from the base's own reading) or a rule that reads text (output
    rows are set anew by it, from states of the model as it then is); that costs no steps.
    """

    name: str
    start: str
    phases: tuple[str, ...]
    one_rate: bool = False  # for input and output rows, as the paper has it


ROADS = {
    each.name: each
    for each in (
        Road("heuristic, one rate: 1, 2, 3", "first_character", ("1", "2", "3"), one_rate=True),
        Road("heuristic: 1, 2, 3", "first_character", ("1", "2", "3")),
        Road("heuristic: 3", "first_character", ("3",)),
        Road("share: 1, 2, 3", "share", ("1", "2", "3")),
        Road("share: 3", "share", ("3",)),
        Road("share: 2, 3", "share", ("2", "3")),
        Road("1, share, 2, 3", "share", ("1", "share", "2", "3")),
        Road("share, one rate: 3", "share", ("3",), one_rate=True),
        Road("fitted: 3", "fitted", ("3",)),
        Road("fitted, one rate: 3", "fitted", ("3",), one_rate=True),
        Road("fitted, one rate: 1, 2, 3", "fitted", ("1", "2", "3"), one_rate=True),
        Road("fitted: 1, 2, 3", "fitted", ("1", "2", "3")),
        Road("fitted: 1, fitted, 3", "fitted", ("1", "fitted", "3")),
        Road("distilled states, share, 3", "share", ("distil states", "share", "3")),
        Road("distilled words, share, 3", "share", ("distil words", "share", "3")),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=list(STEPS), default="small")
    parser.add_argument("--directory", type=Path, required=True, help="that of benchmarks/new_rows.py")
    parser.add_argument("--smollm2", type=Path, help="the folder that holds SmolLM2's GGUF")
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--roads", nargs="+", choices=list(ROADS), default=list(ROADS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument(
        "--steps", type=int, help="optimiser steps of a road; rates are chosen at half the default's"
    )
    parser.add_argument("--fit-tokens", type=int, help="of text, for the rules that read it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    real = arguments.base == "smollm2"
    base = Base(
        arguments.base,
        arguments.directory,
        bfloat16=real,
        length=256,
        documents=40 if real else 100,
        watched=6 if real else 8,
        fit_tokens=arguments.fit_tokens or (30_000 if real else 100_000),
    )
    steps = arguments.steps or STEPS[arguments.base]
    new_rows.base_of(arguments)  # made, unless it is there
    untouched(base)
    chosen = {name: rates_of(base, ROADS[name], STEPS[base.name] // 2) for name in arguments.roads}
    for seed in range(arguments.seeds):
        for name in arguments.roads:
            once(base, ROADS[name], seed, steps, *chosen[name], "final")


def untouched(base: Base) -> None:
    """The base itself on the documents that roads are measured on."""
    if any(line["kind"] == "untouched" and line["base"] == base.name for line in new_rows.done()):
        return
    model, tokenizer, start = load(base, False, "")
    line = {"base": base.name, "kind": "untouched"}
    for part, count in (("choose", base.watched), ("final", base.documents)):
        found = measure(base, model, tokenizer, start, part, count)
        line |= {f"{part}_{language}": found[language] for language in new_rows.LANGUAGES}
    new_rows.write(line)


def rates_of(base: Base, road: Road, steps: int) -> tuple[float, float]:
    """The rates of input and output rows with the least sum of Korean and English: from the highest on, one at a time."""

    def sum_at(rates: tuple[float, float]) -> float:
        line = once(base, road, CHOICE_SEED, steps, *rates, "choose")
        return line["korean"] + line["english"]

    def best(candidates) -> tuple[float, float]:
        """The first that is better than the one behind it."""
        candidates = list(candidates)
        for this, after in itertools.pairwise(candidates):
            if sum_at(this) <= sum_at(after):
                return this
        return candidates[-1]

    if road.one_rate:
        return best((rate, rate) for rate in OUTPUT_RATES)
    output_rate = best((INPUT_RATES[0], rate) for rate in OUTPUT_RATES)[1]
    return best((rate, output_rate) for rate in INPUT_RATES)


def once(base, road, seed, steps, input_rate, output_rate, part) -> dict:
    """The run's line: found, or made and kept. Figures of the final part are taken at one pair of rates only."""
    wanted = {
        "base": base.name,
        "kind": "road",
        "road": road.name,
        "seed": seed,
        "steps": steps,
        "part": part,
    }
    if part == "choose":
        wanted |= {"input_rate": input_rate, "output_rate": output_rate}
    for line in new_rows.done():
        if all(line.get(key) == value for key, value in wanted.items()):
            return line
    found = run(base, road, seed, steps, input_rate, output_rate, part)
    if road.start in READING:
        wanted["fit_tokens"] = base.fit_tokens
    line = {**wanted, "input_rate": input_rate, "output_rate": output_rate, **found}
    new_rows.write(line)
    return line


def run(base, road: Road, seed: int, steps: int, input_rate: float, output_rate: float, part: str) -> dict:
    """Walk a road and measure where it leads."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    model, tokenizer, start = load(base, True, road.start)
    trunk = sum(each.numel() for each in model.model.layers.parameters())
    flops, done, curve = 0.0, 0, []
    if road.start in READING:
        flops += cost_of_reading(road.start, base, model, start)
    timed = [phase for phase in road.phases if phase not in READING]
    edges = [round(steps * n / len(timed)) for n in range(len(timed) + 1)]
    lengths = iter([stop - first for first, stop in itertools.pairwise(edges)])
    marks = {round(steps * n / CURVE) for n in range(CURVE + 1)}
    text = batches(base, tokenizer, seed, ENGLISH)

    def watch() -> None:
        found = measure(base, model, tokenizer, start, "choose", base.watched)
        point = {"steps": done, "flops": flops}
        curve.append(point | {language: round(found[language], 4) for language in new_rows.LANGUAGES})

    watch()
    for phase in road.phases:
        if phase in READING:
            read_rows(phase, base, model, tokenizer, start)
            flops += cost_of_reading(phase, base, model, start)
            watch()
            continue
        stage = STAGES[1 if phase.startswith("distil") else int(phase)]
        loss_of = next_token
        cost = cost_of(base, stage, model, start) * base.step_tokens
        if phase.startswith("distil"):
            teacher = load(base, False, "")[0].eval()
            loss_of = Distillation(teacher, subwords(tokenizer, start), start, words=phase.endswith("words"))
        with prepared(base, stage, model, start, len(tokenizer)) as (wrapped, _):
            groups = rates(wrapped, input_rate, output_rate)
            for _ in steps_through(base, wrapped, groups, text, next(lengths), floor=FLOOR, loss_of=loss_of):
                done, flops = done + 1, flops + cost
                if loss_of is not next_token:
                    flops += 2 * trunk * loss_of.read
                if done in marks:
                    watch()
    found = measure(base, model, tokenizer, start, part, base.documents if part == "final" else base.watched)
    return {"seconds": round(time.perf_counter() - began, 1), "flops": flops, **found, "curve": curve}


def rates(model, input_rate: float, output_rate: float) -> list[dict]:
    """The optimiser's groups: what trains of the input embeddings, and what of the output embeddings."""
    outputs = {id(each) for each in model.get_output_embeddings().parameters()}
    trained = [each for each in model.parameters() if each.requires_grad]
    groups = (
        ([each for each in trained if id(each) not in outputs], input_rate),
        ([each for each in trained if id(each) in outputs], output_rate),
    )
    return [{"params": some, "peak": rate} for some, rate in groups if some]


class Distillation:
    """The loss of input rows that shall be read as the base reads their subwords.

    A new token's merges come behind the base's, so where a new token ends, one of the base's does. There the extended
    model's last hidden state, or its distribution over the base's tokens, is compared with the base's.
    """

    def __init__(self, teacher, pieces: list[list[int]], start: int, *, words: bool):
        self.teacher, self.pieces, self.start, self.words = teacher, pieces, start, words
        self.read = 0  # tokens of the base in the last step

    def __call__(self, model, ids: torch.Tensor) -> torch.Tensor:
        row = ids[0].tolist()
        spelled = [self.pieces[token - self.start] if token >= self.start else [token] for token in row]
        ends = torch.tensor(list(itertools.accumulate(len(each) for each in spelled))) - 1
        own = torch.tensor([[token for each in spelled for token in each]])
        self.read = own.shape[1]
        with torch.no_grad():
            wanted = self.teacher.model(input_ids=own).last_hidden_state[0, ends].float()
        got = model.model(input_ids=ids).last_hidden_state[0].float()
        if not self.words:
            return mse_loss(got, wanted) / wanted.var()
        head = self.teacher.get_output_embeddings().weight.float()[: self.start]
        with torch.no_grad():
            likely = log_softmax(wanted @ head.T, -1)
        return kl_div(log_softmax(got @ head.T, -1), likely, reduction="batchmean", log_target=True)


if __name__ == "__main__":
    main()
