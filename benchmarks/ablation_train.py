"""One run of benchmarks/ablation.py: an arm's stages in one process, with the package's own masks and proofs."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import time
from collections.abc import Iterator

import torch

from benchmarks import new_rows
from benchmarks.ablation_arms import Arm
from benchmarks.ablation_bases import READING, Base, batches, cost_of_reading, held_out, load
from eeve_axolotl.batch import OptimizerStep
from eeve_axolotl.planner.flops import flops_per_token
from eeve_axolotl.planner.memory import Training
from eeve_axolotl.planner.shapes import shape_of
from eeve_axolotl.rows import freeze, row_mask
from eeve_axolotl.stages import Layers, Stage

WARM_UP = 10  # steps, as in the recipes
CURVE = 7  # points of a run's curve


def run(base: Base, arm: Arm, seed: int, tokens: int, rate: float, part: str = "final") -> dict:
    """Train an arm and measure it on a part of the text: the run's line."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    model, tokenizer, start = load(base, arm.extended, arm.output)
    plan = steps_of(base, arm, tokens, model, start)
    flops, done, curve = 0.0, 0, []
    marks = {round(sum(plan) * n / CURVE) for n in range(CURVE + 1)}
    text = batches(base, tokenizer, seed, arm.english)

    def watch(model) -> None:
        found = measure(base, model, tokenizer, start, "choose", base.watched)
        point = {"tokens": done * base.step_tokens, "flops": flops}
        curve.append(point | {language: found[language] for language in new_rows.LANGUAGES})

    if arm.output in READING:
        flops += cost_of_reading(arm.output, base, model, start)
    watch(model)
    for stage, steps in zip(arm.stages, plan, strict=True):
        if not arm.new_text:
            text = batches(base, tokenizer, seed, arm.english)
        cost = cost_of(base, stage, model, start) * base.step_tokens
        of_stage = rate * (arm.rows_rate if stage.internal_layers is Layers.FROZEN else 1.0)
        with prepared(base, stage, model, start, len(tokenizer)) as (wrapped, parameters):
            groups = [{"params": parameters, "peak": of_stage}]
            for _ in steps_through(base, wrapped, groups, text, steps):
                done, flops = done + 1, flops + cost
                if done in marks:
                    watch(wrapped)
        model = wrapped.merge_and_unload() if wrapped is not model else model
    found = measure(base, model, tokenizer, start, part, base.documents if part == "final" else base.watched)
    figures = {"tokens": done * base.step_tokens, "flops": flops, **found, "curve": curve}
    line = {"base": base.name, "arm": arm.name, "seed": seed, "budget": tokens, "rate": rate, "part": part}
    return line | {"seconds": round(time.perf_counter() - began, 1)} | figures


def steps_of(base: Base, arm: Arm, tokens: int, model, start: int) -> list[int]:
    """Steps of each stage: the budget in equal parts."""
    steps = tokens / base.step_tokens
    if arm.equal_flops:
        from benchmarks.ablation_arms import all_arms

        control = all_arms()["no extension"].stages[0]
        rows = model.get_input_embeddings().weight.shape[0]
        costs = [cost_of(base, stage, model, start) for stage in arm.stages]
        steps *= cost_of(base, control, model, start, rows=start if rows > start else rows)
        steps /= sum(costs) / len(costs)
    edges = [round(steps * n / len(arm.stages)) for n in range(len(arm.stages) + 1)]
    return [stop - start for start, stop in itertools.pairwise(edges)]


@functools.cache
def shape(config: str, rows: int):
    return shape_of(json.loads(config) | {"vocab_size": rows})


def cost_of(base: Base, stage: Stage, model, start: int, rows: int | None = None) -> float:
    """FLOPs a token, as `axolotl eeve plan` counts them."""
    rows = rows or model.get_input_embeddings().weight.shape[0]
    step = OptimizerStep(base.length, base.sequences, 1, 1)
    training = Training(rows=rows, base_rows=start, step=step, lora_rank=base.lora_rank)
    config = model.config.to_json_string(use_diff=False)
    return flops_per_token(shape(config, rows), stage, training)


@contextlib.contextmanager
def prepared(base: Base, stage: Stage, model, start: int, vocab_size: int) -> Iterator[tuple]:
    """The model as a stage trains it, and the parameters that train. What the stage freezes is compared at its end."""
    wrapped = model
    if stage.internal_layers is Layers.QLORA:
        from peft import LoraConfig, get_peft_model

        rank = base.lora_rank
        targets = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        targets = [name for name in targets if not name.endswith("lm_head")]
        wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    frozen = freeze(wrapped, row_mask(wrapped, stage, start, vocab_size))
    before = frozen.fingerprint()
    yield wrapped, list(frozen.trained_parameters().values())
    before.check(frozen.fingerprint())
    frozen.remove()


def next_token(model, ids: torch.Tensor) -> torch.Tensor:
    """The loss of a language model."""
    return model(input_ids=ids, labels=ids).loss


def warm_up_of(steps: int) -> int:
    """The warm-up of a stage of so many steps."""
    return min(WARM_UP, max(1, steps // 4))


def steps_through(
    base: Base, model, groups: list[dict], text, steps: int, *, floor: float = 0.0, loss_of=next_token
) -> Iterator[None]:
    """The steps of a stage: AdamW, a warm-up, a cosine, gradients clipped at 1.

    Args:
        groups: the optimiser's: `params`, and `peak`, the learning rate after the warm-up.
        floor: the part of that which is left at the end.
        loss_of: of the model and a batch's ids.
    """
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
    trained = [each for group in groups for each in group["params"]]
    warm_up = warm_up_of(steps)
    for step in range(steps):
        model.train()
        part = max(0, step - warm_up) / max(1, steps - warm_up)
        cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * (min(1.0, (step + 1) / warm_up) * cosine)
        with torch.autocast("cpu", torch.bfloat16, enabled=base.bfloat16):
            loss = loss_of(model, next(text))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield


@torch.no_grad()
def measure(base: Base, model, tokenizer, start: int, part: str, count: int) -> dict:
    """Bits per byte in each language, and in Korean the accuracy on new tokens and how many tokens are new."""
    model.eval()
    found: dict = {}
    for language in new_rows.LANGUAGES:
        texts = held_out(language, part, count)
        nats, new, right, total = 0.0, 0, 0, 0
        for ids in padded(list(new_rows.windows(tokenizer, texts)), 8):
            with torch.autocast("cpu", torch.bfloat16, enabled=base.bfloat16):
                logits = model(input_ids=ids.clamp(min=0)).logits[:, :-1].float()
            wanted = ids[:, 1:]
            real = wanted >= 0
            logits, wanted = logits[real], wanted[real]
            nats += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
            is_new = wanted >= start
            right += int((logits[is_new].argmax(-1) == wanted[is_new]).sum())
            new, total = new + int(is_new.sum()), total + len(wanted)
        found[language] = nats / math.log(2) / sum(len(each.encode()) for each in texts)
        found[f"{language}_tokens"] = total
        if language == "korean":
            found |= {"accuracy_on_new": right / new if new else None, "new": new / total}
    return found


def padded(windows: list[list[int]], size: int) -> Iterator[torch.Tensor]:
    """Windows of like length together, (size, longest), -1 behind the shorter ones."""
    windows = sorted(windows, key=len)
    for at in range(0, len(windows), size):
        some = windows[at : at + size]
        longest = max(len(each) for each in some)
        yield torch.tensor([each + [-1] * (longest - len(each)) for each in some])
