"""A plan as text: one column a stage, and what was assumed."""

from __future__ import annotations

from collections.abc import Sequence

from eeve_axolotl.planner import measured
from eeve_axolotl.planner.estimate import RESERVED, Options, StageEstimate, estimate
from eeve_axolotl.planner.memory import STATE_BYTES
from eeve_axolotl.planner.start import start_of
from eeve_axolotl.tables import plain_table
from eeve_axolotl.text import text_spans


def planned(recipes: Sequence[str], options: Options) -> tuple[list[StageEstimate], list[str]]:
    """The stages of recipes and pipelines, and what is said of them. Raises EEVEError as `estimate` does."""
    by_recipe = {recipe: estimate(recipe, options) for recipe in recipes}
    estimates = [each for some in by_recipe.values() for each in some]
    starts = [start_of(recipe, some, options) for recipe, some in by_recipe.items()]
    return estimates, [table(estimates), *filter(None, starts), assumptions(estimates, options)]


def table(estimates: list[StageEstimate]) -> str:
    """One column a stage, and one with the sums of tokens, FLOPs, hours and cost where there are several."""
    trainings = [each.training for each in estimates]
    rows = [
        ("stage", [each.stage.name for each in estimates], "all"),
        ("parameters trained", [f"{each.trained.total:,}" for each in estimates], ""),
        *_memory(estimates),
        ("fits", ["yes" if each.fits else "NO" for each in estimates], ""),
        ("micro_batch_size", [str(each.step.micro_batch) for each in trainings], ""),
        ("  largest that fits", [str(each.largest_micro_batch) for each in estimates], ""),
        ("gradient_accumulation_steps", [str(each.step.accumulation) for each in trainings], ""),
        ("gradient checkpointing", ["yes" if each.checkpointing else "no" for each in trainings], ""),
        ("steps", [f"{each.steps:,}" for each in estimates], f"{sum(each.steps for each in estimates):,}"),
        _sum("tokens, M", [each.tokens / 1e6 for each in estimates], 1),
        *_text(estimates),
        _sum("PFLOPs", [each.flops / 1e15 for each in estimates], 0),
        _sum("hours", [each.hours for each in estimates], 2),
        _sum("GPU hours", [each.hours * each.training.gpus for each in estimates], 1),
    ]
    costs = [each.cost for each in estimates if each.cost is not None]
    if len(costs) == len(estimates):
        rows.append(_sum("cost", costs, 2))
    cells = [[name, *values, *([total] if len(estimates) > 1 else [])] for name, values, total in rows]
    return plain_table(cells, right=range(1, len(cells[0])))


def _memory(estimates: list[StageEstimate]) -> list[tuple[str, list[str], str]]:
    names = {
        "weights": "weights, GB",
        "gradients": "gradients, GB",
        "optimizer": "optimizer, GB",
        "activations": "activations, GB",
        "logits": "logits, GB",
        "total": "peak of a GPU, GB",
    }
    return [
        (name, [f"{getattr(each.memory, key) / 1e9:.2f}" for each in estimates], "")
        for key, name in names.items()
    ]


def _text(estimates: list[StageEstimate]) -> list[tuple[str, list[str], str]]:
    """Where in the text each stage reads, and how often it has been through the corpus then, if that is known."""
    spans = text_spans((each.tokens, each.reads_again) for each in estimates)
    read = [f"{start / 1e6:,.1f} to {end / 1e6:,.1f}" for start, end in spans]
    rows = [("  of the text, M", read, f"{max(end for _, end in spans) / 1e6:,.1f}")]
    sizes = [each.corpus_tokens for each in estimates]
    if all(sizes):
        epochs = [end / size for (_, end), size in zip(spans, sizes, strict=True) if size]
        rows.append(("  epochs by its end", [f"{each:.2f}" for each in epochs], f"{max(epochs):.2f}"))
    return rows


def _sum(name: str, values: list[float], digits: int) -> tuple[str, list[str], str]:
    return name, [f"{value:,.{digits}f}" for value in values], f"{sum(values):,.{digits}f}"


def assumptions(estimates: list[StageEstimate], options: Options) -> str:
    """What the numbers rest on."""
    lines = [
        "",
        f"Assumed: {options.gpus} x {options.gpu.name}, {options.gpu.memory / 1e9:.0f} GB each, of which "
        f"{RESERVED:.0%} are left to CUDA and fragmentation; {options.gpu.flops / 1e12:.0f} TFLOPS in bf16, of which "
        f"{options.utilisation:.0%} are reached (--utilisation); GB are 10^9 bytes.",
        "Every position attends as if a sequence were one document; activations are those of flash-attention. "
        "The peak is not the sum: logits and a layer made anew do not meet.",
        "Loading, saving, evaluation and traffic between GPUs take time that is not in it.",
        measured.plan_against(
            measured.read(), options.gpu, options.utilisation, [each.stage.name for each in estimates]
        ),
    ]
    strange = sorted({each.training.optimizer for each in estimates} - set(STATE_BYTES))
    if strange:
        lines.append(f"The state of {', '.join(strange)} is taken for AdamW's.")
    if any(each.training.in_fp8 for each in estimates):
        lines.append(
            "Frozen layers in FP8 are counted in the weights, after they were loaded as they are; no gain in speed is "
            "counted, for none is proven. Each process keeps their own weights in the machine's memory."
        )
    if options.price_per_hour is not None:
        lines.append(f"Price: {options.price_per_hour:g} an hour and GPU.")
    return "\n".join(lines)
