"""The report of benchmarks/ablation.py: its table, decisions and picture, from the lines of finished runs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from pathlib import Path

LANGUAGES = ("korean", "english")
FIGURES = (*LANGUAGES, "both")  # both: the sum, by which learning rates were chosen
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""By the number of seeds: Student's t of that number less one degrees of freedom, for an interval of 95 %."""

QUESTIONS = [
    ("Does extension pay?", "seven", "no extension"),
    ("Does extension pay, with one stage?", "6 alone", "no extension"),
    ("Does extension pay, where every parameter trains?", "full", "no extension, full"),
    ("Do seven stages pay, against stage 6 alone?", "seven", "6 alone"),
    ("Do seven stages pay, against stages 3 and 6?", "seven", "3 then 6"),
    ("Do seven stages pay, against training everything?", "seven", "full"),
    ("Do seven stages pay, against what tied models get?", "seven", "3, 4, 6, 7"),
    ("Does stage 3 pay before stage 6?", "3 then 6", "6 alone"),
    ("Does stage 3 pay before training everything?", "full after 3", "full"),
    ("Does stage 7 pay after stage 6?", "6, 7", "6 alone"),
    ("Do seven pay at equal FLOPs, against the control?", "equal FLOPs: seven", "no extension"),
    ("Does 6 alone pay at equal FLOPs, against the control?", "equal FLOPs: 6 alone", "no extension"),
    ("Do seven stages pay at equal FLOPs, against 6 alone?", "equal FLOPs: seven", "equal FLOPs: 6 alone"),
    ("Do seven stages pay at equal FLOPs, against 3 and 6?", "equal FLOPs: seven", "equal FLOPs: 3 then 6"),
    ("Do seven stages pay at equal FLOPs, against everything?", "equal FLOPs: seven", "equal FLOPs: full"),
    ("Do the masks pay?", "seven", "masks off"),
    *((f"Does stage {n} pay?", "seven", f"seven without {n}") for n in (1, 2, 3, 4, 5, 7)),
    *(
        (f"Do rates of rows x{times} pay in {of}?", f"{of}, rows x{times}", of)
        for times in (4, 16)
        for of in ("seven", "3 then 6")
    ),
    *(
        (f"Does the start `{rule}` pay in {of}?", f"{of}, {rule}", of)
        for rule in ("mean", "first_subword", "share", "fitted")
        for of in ("seven", "3 then 6")
    ),
    ("Does the start `fitted` pay in 6 alone?", "6 alone, fitted", "6 alone"),
    ("Does extension pay, with one stage and the start `fitted`?", "6 alone, fitted", "no extension"),
    (
        "Do seven stages pay, against stage 6 alone, with the start `fitted`?",
        "seven, fitted",
        "6 alone, fitted",
    ),
    *(
        (f"Does {words} in the text pay in {of}?", f"{of}, {words}", of)
        for words in ("no English", "a third English")
        for of in ("seven", "6 alone")
    ),
    ("Does the same text in each stage pay?", "seven, one text", "seven"),
    *(
        (f"Is {of} through `axolotl eeve run` another?", f"{of}, by command", of)
        for of in ("seven", "6 alone")
    ),
]


AT_SEVEN = ", at the FLOPs of seven"
EQUAL_FLOPS = [
    (f"Do seven stages pay at their own FLOPs, against {each}?", "seven", each + AT_SEVEN)
    for each in ("no extension", "6 alone", "3 then 6", "full")
]


def report(lines: list[dict], budget: int | None = None, picture: Path | None = None) -> dict:
    """Print the tables of finished runs; the same as an object, with decisions.

    `budget` is the tokens of an arm; without it each base's budget with the most runs is told.
    """
    found: dict = {"arms": {}, "decisions": []}
    for base, runs in by_base(lines, budget).items():
        prefix = "" if base == "small" else f"{base}: "
        arms = {name: summary(list(of.values())) for name, of in runs.items()}
        found["arms"] |= {prefix + name: arm for name, arm in arms.items()}
        made = decisions(runs, prefix, QUESTIONS) + decisions(at_equal_flops(runs), prefix, EQUAL_FLOPS)
        found["decisions"] += made
        print_tables(base, arms, made)
        if picture is not None and base == "small":
            draw(runs, picture)
    return found


def by_base(lines: list[dict], budget: int | None) -> dict[str, dict[str, dict[int, dict]]]:
    """base -> arm -> seed -> the line of the final figures, all of one budget a base."""
    final = [line for line in lines if line["part"] == "final"]
    found: dict = {}
    for base in dict.fromkeys(line["base"] for line in final):
        of_base = [line for line in final if line["base"] == base]
        told = budget or Counter(line["budget"] for line in of_base).most_common(1)[0][0]
        for line in of_base:
            if line["budget"] == told:
                line = line | {"both": line["korean"] + line["english"]}
                found.setdefault(base, {}).setdefault(line["arm"], {})[line["seed"]] = line
    return found


def at_equal_flops(runs: dict[str, dict[int, dict]]) -> dict[str, dict[int, dict]]:
    """What each arm's curve says where its FLOPs are those that seven stages have at their end, between two points linearly.

    The learning rate is not yet at its end there, so an arm that costs more is shown worse than if it had been run so short.
    Curves are of the watched documents of the part for choosing, and so is what `seven` is here.
    """
    found: dict[str, dict[int, dict]] = {}
    for seed, seven in runs.get("seven", {}).items():
        for name, of in runs.items():
            if seed in of:
                at = {each: interpolated(of[seed]["curve"], seven["flops"], each) for each in LANGUAGES}
                key = name if name == "seven" else name + AT_SEVEN
                found.setdefault(key, {})[seed] = at | {"both": at["korean"] + at["english"]}
    return found


def interpolated(curve: list[dict], flops: float, language: str) -> float:
    for one, other in itertools.pairwise(curve):
        if one["flops"] <= flops <= other["flops"]:
            part = (flops - one["flops"]) / (other["flops"] - one["flops"])
            return one[language] + part * (other[language] - one[language])
    return curve[-1][language]


def interval(values: list[float]) -> list[float | None]:
    """Mean, and the ends of its 95 % interval; None and None where there is one value only."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean, None, None]
    half = T[min(len(values), max(T))] * statistics.stdev(values) / math.sqrt(len(values))
    return [mean, mean - half, mean + half]


def summary(runs: list[dict]) -> dict:
    """An arm's figures over its seeds."""
    return {
        "seeds": len(runs),
        **{each: interval([run[each] for run in runs]) for each in FIGURES},
        "tokens": runs[0]["tokens"],
        "flops": runs[0]["flops"],
        "accuracy_on_new": runs[0]["accuracy_on_new"]
        and statistics.fmean(run["accuracy_on_new"] for run in runs),
        "rate": runs[0]["rate"],
        "seconds": statistics.fmean(run["seconds"] for run in runs),
    }


def decisions(runs: dict[str, dict[int, dict]], prefix: str, questions: list) -> list[dict]:
    """Each question whose two arms share a seed: differences paired over seeds, and what they say."""
    found = []
    for question, arm, against in questions:
        seeds = sorted(runs.get(arm, {}).keys() & runs.get(against, {}).keys())
        if not seeds:
            continue
        one: dict = {"question": prefix + question, "arm": prefix + arm, "against": prefix + against}
        one["seeds"] = len(seeds)
        for language in FIGURES:
            between = [runs[arm][seed][language] - runs[against][seed][language] for seed in seeds]
            one[language] = interval(between)
            one[f"{language}_verdict"] = verdict(one[language])
        found.append(one)
    return found


def verdict(difference: list[float | None]) -> str:
    """What an interval of differences in bits per byte says of the first arm."""
    _, low, high = difference
    if low is None or high is None:
        return "one seed"
    return "better" if high < 0 else "worse" if low > 0 else "no difference"


def print_tables(base: str, arms: dict[str, dict], made: list[dict]) -> None:
    tokens = max(arm["tokens"] for name, arm in arms.items() if "FLOPs" not in name)
    print(
        f"\n{base}: bits per byte of the final documents, mean and 95 % interval over seeds, {tokens:,} tokens"
    )
    print(
        "\n| arm | seeds | Korean | English | both | new tokens right | rate | tokens | TFLOPs |\n"
        + "|---" * 9
        + "|"
    )
    for name, arm in sorted(arms.items(), key=lambda each: each[1]["korean"][0]):
        right = "-" if arm["accuracy_on_new"] is None else f"{arm['accuracy_on_new']:.3f}"
        figures = " | ".join(plus_minus(arm[each]) for each in FIGURES)
        print(
            f"| {name} | {arm['seeds']} | {figures} | {right} | {arm['rate']:g} | {arm['tokens']:,} "
            f"| {arm['flops'] / 1e12:.3f} |"
        )
    print("\n| question | first less second | seeds | Korean | | English | | both | |\n" + "|---" * 9 + "|")
    for one in made:
        figures = " | ".join(
            f"{plus_minus(one[language], '+')} | {one[f'{language}_verdict']}" for language in FIGURES
        )
        print(f"| {one['question']} | {one['arm']} - {one['against']} | {one['seeds']} | {figures} |")


def plus_minus(of: list[float | None], sign: str = "") -> str:
    mean, _, high = of
    assert mean is not None
    return f"{mean:{sign}.3f}" + ("" if high is None else f" ± {high - mean:.3f}")


def draw(runs: dict[str, dict[int, dict]], picture: Path) -> None:
    """Curves of the main arms, and each arm's difference from `seven`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 6.5), width_ratios=[1, 1.15])
    for name in ("no extension", "seven", "3 then 6", "6 alone", "full"):
        of = list(runs.get(name, {}).values())
        if of:
            points = zip(*(run["curve"] for run in of), strict=True)
            means = [
                (at[0]["flops"] / 1e12, statistics.fmean(each["korean"] for each in at)) for at in points
            ]
            left.plot(*zip(*means, strict=True), marker="o", markersize=3, label=name)
    left.set(xlabel="TFLOPs", ylabel="Korean bits per byte", title="While training, on other documents")
    left.legend()
    seven = runs.get("seven", {})
    shown = []
    for name, of in runs.items():
        seeds = of.keys() & seven.keys()
        if seeds and name != "seven":
            both = [interval([of[s][each] - seven[s][each] for s in seeds]) for each in LANGUAGES]
            shown.append((name, both))
    shown.sort(key=lambda each: -(each[1][0][0] or 0))
    for offset, n, colour in ((0.12, 0, "tab:blue"), (-0.12, 1, "tab:orange")):
        for y, (_, both) in enumerate(shown):
            mean, low, high = both[n]
            sure = low is not None and (low > 0 or high < 0)
            if low is not None:
                right.plot([low, high], [y + offset] * 2, color=colour, linewidth=1)
            right.plot(
                mean, y + offset, "o", color=colour, fillstyle="full" if sure else "none", markersize=5
            )
        right.plot([], [], "o", color=colour, label=LANGUAGES[n].capitalize())
    right.axvline(0, color="grey", linewidth=0.8)
    right.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8)
    right.set(
        xlabel="bits per byte more than with seven stages", title="At the end (filled: outside the interval)"
    )
    widest = max((abs(both[n][0] or 0) for _, both in shown for n in (0, 1)), default=1)
    right.set_xlim(-1.6 * widest, 1.6 * widest)
    right.legend(loc="upper right", fontsize=8)
    figure.tight_layout()
    partial = picture.with_name(f".{picture.name}")
    figure.savefig(partial, dpi=90, format="png", metadata={"Software": None})
    pyplot.close(figure)
    partial.replace(picture)
