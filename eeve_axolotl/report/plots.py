"""The plots, as PNG files. What is missing leaves a gap and is named; nothing is drawn as zero for it.

Colours are Okabe and Ito's, told apart by colour-blind eyes; each line has a marker and a name of its own
as well, so that the plots can be read in grey.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eeve_axolotl.report.blocks import Figure
from eeve_axolotl.report.collect import MATRICES, Evaluation, PipelineData, StageData, loss_window
from eeve_axolotl.report.fonts import Fonts, fonts

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PLOTS = ("loss", "time", "bits", "norms", "neighbours")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_NEIGHBOURS = 20  # tokens in the plot; the table has all
_GREY = "#595959"


def draw(pipeline: PipelineData, folder: Path) -> dict[str, Figure]:
    """Draw every plot that there is data for into `folder`; by name: loss, time, bits, norms, neighbours."""
    import matplotlib

    matplotlib.use("Agg")
    style: dict[Any, Any] = {  # matplotlib's own type lists every key there is
        "font.family": list(fonts().families),
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "savefig.dpi": 140,
        "text.parse_math": False,  # a token may be a dollar sign
    }
    plots = (_loss, _time, _bits, _norms, _neighbours)
    with matplotlib.rc_context(style):
        drawn = {
            name: plot(pipeline, folder / f"{name}.png") for name, plot in zip(PLOTS, plots, strict=True)
        }
    return {name: figure for name, figure in drawn.items() if figure}


@contextlib.contextmanager
def _saved(path: Path, rows: int, columns: int, size: tuple[float, float], **options) -> Iterator:
    """The axes of a figure (a list) that is saved to `path` at the end."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)
    yield axes.ravel().tolist()
    figure.savefig(path, metadata={"Software": None})  # the same bytes whatever matplotlib's version says
    plt.close(figure)


def _loss(pipeline: PipelineData, path: Path) -> Figure | None:
    known = [
        (stage, stage.tokens, stage.tokens_per_step)
        for stage in pipeline.stages
        if stage.losses and stage.tokens and stage.tokens_per_step
    ]
    if not known:
        return None
    total = sum(tokens for _, tokens, _ in known)
    unit, name = _unit(total)
    with _saved(path, 1, 1, (9.5, 4.2)) as (axes,):
        start = 0
        top = axes.get_xaxis_transform()
        for number, (stage, tokens, tokens_per_step) in enumerate(known):
            steps, losses = zip(*stage.losses, strict=True)
            places = [(start + step * tokens_per_step) / unit for step in steps]
            few = len(places) <= 30
            smooth = _smoothed(losses)
            if smooth != list(losses):
                axes.plot(places, losses, color=COLOURS[number % 2], linewidth=0.7, alpha=0.3)
            axes.plot(
                places, smooth, color=COLOURS[number % 2], marker="." if few else None, linewidth=1.3
            )  # neighbours differ; boundaries and labels say which is which
            middle, end = (start + tokens / 2) / unit, (start + tokens) / unit
            room = 100 * tokens / total  # in characters of this size, about
            axes.text(
                middle, 1.015, stage.label if len(stage.label) < room else stage.name, transform=top,
                ha="center", va="bottom", fontsize=9, rotation=90 if len(stage.name) > max(room, 2) else 0,
            )  # fmt: skip
            if number < len(known) - 1:
                axes.axvline(end, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
            start += tokens
        axes.set_xlim(0, total / unit)
        axes.set_xlabel(f"tokens trained{name}")
        axes.set_ylabel("training loss (nats per token)")
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    return Figure(
        path.name,
        "Training loss against tokens trained, with the boundaries of the stages",
        "Training loss against tokens (padding counted), smoothed, each step's behind it; dashed lines bound the stages."
        + _left_out(pipeline.stages, [stage for stage, _, _ in known]),
    )


def _smoothed(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and those before it, in windows as the table's first and last loss."""
    window = loss_window(len(losses))
    starts = [max(0, end - window) for end in range(1, len(losses) + 1)]
    return [sum(losses[start:end]) / (end - start) for end, start in enumerate(starts, start=1)]


def _time(pipeline: PipelineData, path: Path) -> Figure | None:
    stages = pipeline.stages
    known = [stage for stage in stages if stage.tokens is not None or stage.seconds is not None]
    if not known:
        return None
    unit, name = _unit(max((stage.tokens or 0 for stage in stages), default=0))
    longest = max((stage.seconds or 0 for stage in stages), default=0)
    clock, word = (
        (3600, "hours") if longest >= 7200 else (60, "minutes") if longest >= 120 else (1, "seconds")
    )
    columns = (
        (f"tokens{name}", [stage.tokens and stage.tokens / unit for stage in stages], COLOURS[0], ""),
        (word, [stage.seconds and stage.seconds / clock for stage in stages], COLOURS[4], "//"),
    )
    with _saved(path, 1, 2, (9.5, 0.9 + 0.34 * len(stages)), sharey=True) as panels:
        for axes, (label, values, colour, hatch) in zip(panels, columns, strict=True):
            widest = max((value for value in values if value), default=1)
            for place, value in enumerate(values):
                if value is None:
                    axes.text(0, place, " not known", va="center", color=_GREY, style="italic")
                else:
                    axes.barh(place, value, 0.65, color=colour, hatch=hatch, edgecolor="white")
                    axes.text(
                        value, place, f" {value:,.3g}" if value < 1000 else f" {value:,.0f}", va="center"
                    )
            axes.set_xlim(0, widest * 1.18)
            axes.set_ylim(len(stages) - 0.4, -0.6)
            axes.set_xlabel(label)
        panels[0].set_yticks(range(len(stages)), [stage.label for stage in stages])
    return Figure(
        path.name,
        "Tokens trained and wall-clock time of each stage",
        "Tokens (padding counted) and wall-clock time of each stage." + _left_out(stages, known),
    )


def _bits(pipeline: PipelineData, path: Path) -> Figure | None:
    lines = {
        _text_name(name, number): [each.text(name).get("bits_per_byte") for each in pipeline.evaluations]
        for number, name in enumerate(pipeline.text_names, start=1)
    }
    lines = {name: values for name, values in lines.items() if any(value is not None for value in values)}
    if not lines:
        return None
    with _saved(path, 1, 1, (9.5, 4.2)) as (axes,):
        _by_model(axes, pipeline.evaluations, lines)
        axes.set_ylabel("bits per byte (lower is better)")
    return Figure(
        path.name,
        "Bits per byte of each held-out text, by model",
        "Bits per byte on held-out texts, comparable across tokenizers; lower is better."
        + _gaps(pipeline.evaluations, list(lines.values()))
        + _numbered(pipeline.text_names),
    )


def _norms(pipeline: PipelineData, path: Path) -> Figure | None:
    kinds = {"old": "old rows", "new": "new rows"}
    panels = {
        title: {
            label: [each.row_norms(matrix, kind) for each in pipeline.evaluations]
            for kind, label in kinds.items()
        }
        for matrix, title in MATRICES.items()
    }
    every = [values for lines in panels.values() for values in lines.values()]
    if not any(row for values in every for row in values):
        return None
    with _saved(path, 1, 2, (9.5, 3.9)) as both:
        for axes, (title, lines) in zip(both, panels.items(), strict=True):
            means = {name: [row.get("mean_norm") for row in rows] for name, rows in lines.items()}
            spreads = {name: [row.get("std_norm") for row in rows] for name, rows in lines.items()}
            _by_model(axes, pipeline.evaluations, means, spreads)
            axes.set_title(title)
            axes.set_ylabel("norm of a row")
    return Figure(
        path.name,
        "Mean norm of old and new rows of both embedding matrices, by model",
        "Mean L2 norm of old and new rows; bars are one standard deviation either way."
        + _gaps(pipeline.evaluations, [[row.get("mean_norm") for row in values] for values in every]),
    )


def _by_model(
    axes,
    evaluations: Sequence[Evaluation],
    lines: dict[str, list[float | None]],
    spreads: dict[str, list[float | None]] | None = None,
) -> None:
    """Draw a line per name over the models in order, named at its last point; gaps where a value is None."""
    ends = {}
    for number, (name, values) in enumerate(lines.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        heights = [math.nan if value is None else value for value in values]
        # Side by side where there are bars, so that one does not hide the other.
        places = [place + (0.12 * number if spreads else 0) for place in range(len(values))]
        axes.plot(places, heights, color=colour, marker=marker, markersize=5.5, linewidth=1.5)
        if spreads:
            errors = [value or 0 for value in spreads[name]]
            axes.errorbar(
                places, heights, yerr=errors, fmt="none", ecolor=colour, elinewidth=0.9, capsize=2, alpha=0.7
            )
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        if known:
            ends[name] = (*known[-1], colour)
    axes.set_xlim(-0.3, len(evaluations) - 0.7)
    names = [each.name for each in evaluations]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    for tick, each in zip(axes.get_xticklabels(), evaluations, strict=True):
        if not each.figures:
            tick.set(color=_GREY, style="italic")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.margins(y=0.12)
    low, high = axes.get_ylim()
    spread = _apart({name: value for name, (_, value, _) in ends.items()}, 0.075 * (high - low))
    for name, height in spread.items():
        axes.annotate(
            name, (ends[name][0], height), xytext=(9, 0), textcoords="offset points",
            va="center", color=ends[name][2], annotation_clip=False,
        )  # fmt: skip


def _apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Heights moved as little as need be for neighbours to be at least `gap` apart."""
    groups: list[list[str]] = []
    for name in sorted(heights, key=heights.__getitem__):
        groups.append([name])
        while len(groups) > 1 and _bottom(groups[-1], heights, gap) - _top(groups[-2], heights, gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return {
        name: _bottom(group, heights, gap) + place * gap
        for group in groups
        for place, name in enumerate(group)
    }


def _bottom(group: list[str], heights: dict[str, float], gap: float) -> float:
    return sum(heights[name] for name in group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: list[str], heights: dict[str, float], gap: float) -> float:
    return _bottom(group, heights, gap) + gap * (len(group) - 1)


def _neighbours(pipeline: PipelineData, path: Path) -> Figure | None:
    ends = before_and_after(pipeline.evaluations)
    found = nearest(pipeline.evaluations).items()
    pairs = [(token, before, after) for token, (before, after) in found if before or after][:MOST_NEIGHBOURS]
    if not ends or not pairs:
        return None
    write, ids = fonts(), pipeline.token_ids
    with _saved(path, 1, 1, (9.5, 1.2 + 0.3 * len(pairs))) as (axes,):
        for place, (_, before, after) in enumerate(pairs):
            if before and after:
                axes.plot([before[1], after[1]], [place, place], color=_GREY, linewidth=1)
        for number, label in enumerate(("before", "after")):
            points = [(pair[number + 1][1], place) for place, pair in enumerate(pairs) if pair[number + 1]]
            if points:
                axes.scatter(
                    *zip(*points, strict=True),
                    color=COLOURS[number],
                    marker=MARKERS[number],
                    label=label,
                    zorder=3,
                )
        axes.set_yticks(range(len(pairs)), [write.token(token, ids) for token, _, _ in pairs])
        for place, (_, before, after) in enumerate(pairs):
            told = " → ".join(write.token(each[0], ids) if each else "—" for each in (before, after))
            axes.annotate(
                told, (1, place), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
                va="center", fontsize=9, annotation_clip=False,
            )  # fmt: skip
        axes.set_xlabel("cosine of the new token's input row with the nearest other row")
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0)
    first, last = (each.name for each in ends)
    tokens = {each for token, *found in pairs for each in (token, *(pair[0] for pair in found if pair))}
    boxes = any(not write.can_draw(token) for token in tokens)
    return Figure(
        path.name,
        "Cosine of sample new tokens with the nearest other token, before and after training",
        f"Sample new tokens, the nearest other token and its cosine: before ({first}) and after ({last})."
        + (f" {_no_font(write)}" if boxes else ""),
    )


def _no_font(write: Fonts) -> str:
    reason = (
        "No installed font has Hangul" if len(write.families) == 1 else "The installed fonts lack some tokens"
    )
    return f"{reason}: the plot shows token ids (#) instead; the table has the tokens."


def before_and_after(evaluations: Sequence[Evaluation]) -> tuple[Evaluation, Evaluation] | None:
    """The first and the last model whose neighbours of new tokens are known; None without two of them."""
    known = [each for each in evaluations if each.neighbours]
    return (known[0], known[-1]) if len(known) > 1 else None


def nearest(evaluations: Sequence[Evaluation]) -> dict[str, tuple]:
    """By sample token, the nearest other token with its cosine before and after; None where not known."""
    ends = before_and_after(evaluations)
    if not ends:
        return {}
    tokens = dict.fromkeys(token for each in ends for token in each.neighbours)
    return {token: tuple((each.neighbours.get(token) or [None])[0] for each in ends) for token in tokens}


def _text_name(name: str, number: int) -> str:
    """A held-out text's name, or its number where no font has its letters."""
    return name if fonts().can_draw(name) else f"text {number}"


def _numbered(names: Sequence[str]) -> str:
    """Which text a number stands for."""
    told = [
        f"text {number} is {name}"
        for number, name in enumerate(names, start=1)
        if _text_name(name, number) != name
    ]
    return f" No installed font has these letters: {', '.join(told)}." if told else ""


def _unit(tokens: float) -> tuple[float, str]:
    """What to divide tokens by, and how to say so."""
    for size, word in ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands")):
        if tokens >= size:
            return size, f" ({word})"
    return 1, ""


def _left_out(stages: Sequence[StageData], shown: Sequence[StageData]) -> str:
    missing = [stage.label for stage in stages if stage not in shown]
    return f" Missing: {', '.join(missing)}." if missing else ""


def _gaps(evaluations: Sequence[Evaluation], lines: list[list]) -> str:
    """Models of which no line has a value."""
    missing = [
        each.name for number, each in enumerate(evaluations) if all(line[number] is None for line in lines)
    ]
    return f" Missing: {', '.join(missing)}." if missing else ""
