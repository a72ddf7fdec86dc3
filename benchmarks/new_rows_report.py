"""The report of benchmarks/new_rows.py and benchmarks/new_rows_roads.py, from the lines of finished measurements."""

from __future__ import annotations

import itertools
import statistics

from benchmarks.ablation_report import LANGUAGES, interval, plus_minus, verdict

HEURISTIC = "heuristic"
DEFAULT = "fitted"  # what a project of `axolotl eeve init` begins with
DEFAULT_ROAD = "heuristic, one rate: 1, 2, 3"  # what the recipes do today
WITHIN = 1.05  # times the base's Korean bits per byte: what a road shall reach


def report(lines: list[dict]) -> dict:
    """Print the tables; the same as an object: SmolLM2's figures, and those of every base in `by_base`."""
    found: dict = {}
    for line in lines:
        of = found.setdefault(line["base"], {"base": None, "start": {}})
        if line["kind"] == "base":
            of["base"] = {language: line[language] for language in LANGUAGES}
        elif line["kind"] == "start":
            keys = (*LANGUAGES, "mass", "share", "cost_flops")
            of["start"][line["rule"]] = {key: line[key] for key in keys}
    for name, of in found.items():
        print_starts(name, of)
        of |= roads(name, lines)
    real = found.get("smollm2") or {"base": None, "start": {}, "to_105_percent": {}, "after": {}}
    return {**real, "default": DEFAULT, "by_base": found}


def print_starts(name: str, of: dict) -> None:
    print(f"\n{name:<28}{'Korean':>9}{'English':>9}{'to new':>9}{'are new':>9}")
    if of["base"]:
        print(f"{'  the base itself':<28}{of['base']['korean']:>9.3f}{of['base']['english']:>9.3f}")
    for rule, each in of["start"].items():
        figures = f"{each['korean']:>9.3f}{each['english']:>9.3f}{each['mass']:>9.2f}{each['share']:>9.2f}"
        print(f"{'  ' + rule:<28}{figures}")


def roads(base: str, lines: list[dict]) -> dict:
    """Figures after each road: those of the number of steps that most roads have, and of each number in `by_steps`.

    Of a road: its figures over the seeds, the FLOPs at which it first comes near the base, and what it is against the
    default. The nearness is read off the curves, so on the watched documents of the part for choosing; their mean over the
    seeds. A road that does not come there in so many steps may in more.
    """
    of_base = [line for line in lines if line["base"] == base]
    runs: dict[int, dict[str, dict[int, dict]]] = {}
    for line in of_base:
        if line["kind"] == "road" and line["part"] == "final":
            runs.setdefault(line["steps"], {}).setdefault(line["road"], {})[line["seed"]] = line
    nothing: dict = {"after": {}, "to_105_percent": {}, "against_default": {}}
    if not runs:
        return nothing
    (itself,) = (line for line in of_base if line["kind"] == "untouched")
    print(f"\n{base}: roads, bits per byte at the end, mean and 95 % interval over seeds")
    print(f"the base itself: Korean {itself['final_korean']:.3f}, English {itself['final_english']:.3f}\n")
    print("| road | seeds | rates | steps | Korean | English | TFLOPs | to 1.05 x the base's Korean |")
    print("|---" * 8 + "|")
    by_steps = {
        steps: of_steps(some, WITHIN * itself["choose_korean"]) for steps, some in sorted(runs.items())
    }
    chosen = by_steps[max(runs, key=lambda steps: (DEFAULT_ROAD in runs[steps], len(runs[steps]), steps))]
    near: dict[str, float | None] = {}
    for steps in sorted(runs):
        for name, flops in by_steps[steps]["to_105_percent"].items():
            near[name] = flops if near.get(name) is None else near[name]
    return {**chosen, "to_105_percent": near, "by_steps": by_steps}


def of_steps(runs: dict[str, dict[int, dict]], goal: float) -> dict:
    """The roads of so many steps, printed; `goal` is the Korean to come to."""
    found: dict = {"after": {}, "to_105_percent": {}, "against_default": {}}
    for name, by_seed in sorted(runs.items(), key=lambda each: mean(each[1].values(), "korean")):
        some = list(by_seed.values())
        found["after"][name] = {each: interval([run[each] for run in some]) for each in LANGUAGES}
        found["to_105_percent"][name] = reached([run["curve"] for run in some], goal)
        if name != DEFAULT_ROAD:
            found["against_default"][name] = against(by_seed, runs.get(DEFAULT_ROAD, {}))
        after = " | ".join(plus_minus(found["after"][name][each]) for each in LANGUAGES)
        rates = f"{some[0]['input_rate']:g}, {some[0]['output_rate']:g}"
        at = found["to_105_percent"][name]
        told = "not reached" if at is None else f"{at / 1e12:.3f} TFLOPs"
        print(
            f"| {name} | {len(some)} | {rates} | {some[0]['steps']} | {after} | {some[0]['flops'] / 1e12:.3f} | {told} |"
        )
    return found


def mean(runs, figure: str) -> float:
    return statistics.fmean(run[figure] for run in runs)


def reached(curves: list[list[dict]], goal: float) -> float | None:
    """FLOPs at which the mean Korean of the curves is first at the goal, between two points linearly; None if never."""
    points = [
        (at[0]["flops"], statistics.fmean(each["korean"] for each in at)) for at in zip(*curves, strict=True)
    ]
    if points[0][1] <= goal:
        return points[0][0]
    for (before, high), (after, low) in itertools.pairwise(points):
        if low <= goal:
            return before + (high - goal) / (high - low) * (after - before)
    return None


def against(road: dict[int, dict], default: dict[int, dict]) -> dict:
    """What the road has less of than the default, paired over the seeds of both; empty where they share none."""
    seeds = sorted(road.keys() & default.keys())
    found: dict = {}
    for language in LANGUAGES if seeds else ():
        found[language] = interval([road[seed][language] - default[seed][language] for seed in seeds])
        found[f"{language}_verdict"] = verdict(found[language])
    return found
