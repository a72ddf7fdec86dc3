"""An arm of benchmarks/ablation.py through `axolotl eeve run`: the commands that users type, on the same windows of text.

What differs from `ablation_train.run`: Axolotl's own trainer, warm-up and schedule, layers that are read in 4 bits while
adapters train, the adapters' random start, and that the model is saved and read again between the runs. The figures are
measured by the same function.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ablation_arms import Arm
from benchmarks.ablation_bases import Base, batches, load
from benchmarks.ablation_train import cost_of, measure, steps_of, warm_up_of
from benchmarks.new_rows import LANGUAGES
from eeve_axolotl.stages import Layers

AXOLOTL = Path(sys.executable).with_name("axolotl")
KERNELS = ("lora_qkv_kernel", "lora_o_kernel", "lora_mlp_kernel", "lora_embedding_kernel")  # need a GPU


def run(base: Base, arm: Arm, seed: int, tokens: int, rate: float, part: str = "final") -> dict:
    """Train an arm by one `axolotl eeve run` and measure what comes out: the run's line."""
    from transformers import AutoModelForCausalLM

    began = time.perf_counter()
    model, tokenizer, start = load(base, arm.extended, arm.output)
    plan = steps_of(base, arm, tokens, model, start)
    costs = [cost_of(base, stage, model, start) * base.step_tokens for stage in arm.stages]
    flops = sum(steps * cost for steps, cost in zip(plan, costs, strict=True))
    watched = [measure(base, model, tokenizer, start, "choose", base.watched)]
    directory = base.path.parent / "chain" / f"{arm.name}, {seed}".replace(", ", "-").replace(" ", "_")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    windows = batches(base, tokenizer, seed, arm.english)
    write_text(directory / "text.jsonl", itertools.islice(windows, sum(plan)))
    last = write_yamls(directory, base, arm, seed, plan, rate)
    with open(directory / "log.txt", "w", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [str(AXOLOTL), "eeve", "run", "pipeline.yml"]
        subprocess.run(command, cwd=directory, env=environment, stdout=log, stderr=log, check=True)
    model = AutoModelForCausalLM.from_pretrained(directory / last, dtype="float32")
    watched.append(measure(base, model, tokenizer, start, "choose", base.watched))
    found = measure(base, model, tokenizer, start, part, base.documents if part == "final" else base.watched)
    shutil.rmtree(directory)
    spent = sum(plan) * base.step_tokens
    ends = ({"tokens": 0, "flops": 0.0}, {"tokens": spent, "flops": flops})
    curve = [
        end | {language: at[language] for language in LANGUAGES}
        for end, at in zip(ends, watched, strict=True)
    ]
    line = {"base": base.name, "arm": arm.name, "seed": seed, "budget": tokens, "rate": rate, "part": part}
    seconds = round(time.perf_counter() - began, 1)
    return line | {"seconds": seconds, "tokens": spent, "flops": flops, **found, "curve": curve}


def write_text(file: Path, windows: Iterable) -> None:
    """The windows as text that Axolotl finds tokenized already, a line each."""
    with open(file, "w", encoding="utf-8") as lines:
        for batch in windows:
            for ids in batch.tolist():
                line = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids}
                lines.write(json.dumps(line) + "\n")


def write_yamls(directory: Path, base: Base, arm: Arm, seed: int, plan: list[int], rate: float) -> str:
    """The chain's YAMLs: stages without layers in one run, each of the others in its own. Returns where its end lies."""
    steps = list(zip(arm.stages, plan, strict=True))
    runs: list[str] = []
    before = str(base.path.absolute())
    for with_layers, some in itertools.groupby(
        steps, lambda each: each[0].internal_layers is not Layers.FROZEN
    ):
        for together in [[each] for each in some] if with_layers else [list(some)]:
            name = "_".join(stage.name for stage, _ in together)
            recipe = recipe_of(base, before, f"./out{name}", together, seed, rate)
            if with_layers:
                recipe |= adapters(base)
            (directory / f"{name}.yml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
            runs.append(f"{name}.yml")
            before = f"./out{name}/merged" if with_layers else f"./out{name}"
    pipeline = {"output": "./pipeline", "runs": runs, "launcher": "python"}
    (directory / "pipeline.yml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    return before


def recipe_of(base: Base, before: str, output: str, together: list, seed: int, rate: float) -> dict[str, Any]:
    """A run's YAML, of stages and the steps of each."""
    stages = [
        {"stage": int(stage.name), "max_steps": steps, "warmup_steps": warm_up_of(steps)}
        for stage, steps in together
    ]
    longest = max(steps for _, steps in together)
    return {
        "base_model": before,
        "tokenizer_config": str((base.path.parent / "tokenizer").absolute()),
        "plugins": ["eeve_axolotl.EEVEPlugin"],
        "trainer_cls": "eeve_axolotl.trainer.EEVETrainer",
        "eeve": {"stages": stages},
        "datasets": [{"path": "./text.jsonl", "ds_type": "json"}],
        "dataset_prepared_path": "./prepared",
        "dataset_num_proc": 1,
        "curriculum_sampling": True,  # the windows in their order
        "val_set_size": 0,
        "sequence_len": base.length,
        "sample_packing": False,
        "max_steps": longest,
        "num_epochs": 1000,
        "micro_batch_size": base.sequences,
        "gradient_accumulation_steps": 1,
        "learning_rate": rate,
        "lr_scheduler": "cosine",
        "warmup_steps": warm_up_of(longest),
        "optimizer": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": base.bfloat16,
        "fp16": False,
        "tf32": False,
        "attn_implementation": "sdpa",
        "gradient_checkpointing": False,
        "output_dir": output,
        "save_strategy": "no",
        "logging_steps": 10,
        "seed": seed,
    }


def adapters(base: Base) -> dict[str, Any]:
    """The keys of a run with layers."""
    rank = {"lora_r": base.lora_rank, "lora_alpha": 2 * base.lora_rank, "lora_dropout": 0.0}
    qlora = {"adapter": "qlora", "load_in_4bit": True, "lora_target_linear": True}
    return {**qlora, **rank, **dict.fromkeys(KERNELS, False)}
