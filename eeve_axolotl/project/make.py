"""A project's files: the packaged recipes with what was asked for, and batches that fit. Nothing is overwritten."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from eeve_axolotl import languages, recipes
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import check_writable, write_text
from eeve_axolotl.planner.estimate import StageEstimate
from eeve_axolotl.project import base as bases
from eeve_axolotl.project import edits, hardware, texts
from eeve_axolotl.project.base import Base
from eeve_axolotl.project.hardware import Machine
from eeve_axolotl.project.texts import Text
from eeve_axolotl.project.wanted import Wanted

SEVEN = ("stages1to5.yml", "stage6.yml", "stage7.yml")
SHORT = ("stage6.yml",)
LENGTH = 4096  # paper 3.2
STARTED = "./started"  # the base with its new rows, from which the first stage starts
STAGES = {"stages1to5.yml": (1, 2, 3, 4, 5), "stage6.yml": (6,), "stage7.yml": (7,)}


@dataclass(frozen=True)
class Project:
    """What was written, and what a person should know of it."""

    files: list[Path]
    machine: Machine
    estimates: list[StageEstimate]
    notes: list[str]


def make(wanted: Wanted) -> Project:
    """Write the project. Raises EEVEError, before anything is written, for what cannot work or would be overwritten."""
    directory = wanted.directory
    check_writable(directory, "DIR")
    language = languages.find(wanted.language, wanted.script)
    machine = hardware.machine(wanted)
    all_texts = [
        texts.new_text(wanted.corpus, language, wanted.columns),
        *(texts.kept_text(each, wanted.columns) for each in wanted.keep),
    ]
    if len({each.group for each in all_texts}) < len(all_texts):
        raise EEVEError("--keep names a language twice, or the new one; give each language one name")
    base = bases.find(wanted.base, directory)
    yamls, estimates = _stages(wanted, base, machine, all_texts[0].language.name)
    yamls |= _rendered(wanted, base, machine, all_texts)
    there = [str(directory / name) for name in yamls if os.path.lexists(directory / name)]
    if there:
        raise EEVEError(
            f"nothing was written, for these exist already: {', '.join(there)}; give another directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in yamls.items():
        write_text(directory / name, text)
    return Project([directory / name for name in yamls], machine, estimates, _notes(all_texts, machine))


def _stages(
    wanted: Wanted, base: Base, machine: Machine, language: str
) -> tuple[dict[str, str], list[StageEstimate]]:
    """The runs' YAMLs with the largest batches that fit, without checkpointing if that fits."""
    sequences = _of_one_process(wanted.global_batch, machine.processes)
    length = wanted.sequence_len or min(LENGTH, base.longest or LENGTH)
    runs = list(_runs(wanted))

    def fit(yamls: dict[str, str]) -> list[StageEstimate]:
        return hardware.fit(
            yamls, runs, base.known_by, machine, wanted.new_tokens, untied=_untied(wanted, base)
        )

    for checkpointing in (False, True):
        yamls = {
            name: _stage(name, wanted, base, machine, language, length, sequences, checkpointing)
            for name in runs
        }
        estimates = fit(yamls)
        if all(each.largest_micro_batch for each in estimates):
            break
    else:
        hardware.check(estimates, machine)
    sizes = {each.stage.name: hardware.micro_batch(each, machine, sequences) for each in estimates}
    yamls = {name: _with_batches(name, text, sizes) for name, text in yamls.items()}
    return yamls, fit(yamls)


def _runs(wanted: Wanted) -> tuple[str, ...]:
    """The names of the runs' YAMLs."""
    return SHORT if wanted.short else SEVEN


def _untied(wanted: Wanted, base: Base) -> bool:
    """Whether a tied base gets a second matrix: to start its output rows from text, or for stages that tell them apart."""
    return base.tied and (wanted.start or not wanted.short)


def _of_one_process(sequences: int, processes: int) -> int:
    """Sequences of a step for each process, a few more where so many cannot be dealt out in micro batches."""
    share = -(-sequences // processes)
    return share if sequences % processes == 0 else -(-share // 8) * 8


def _stage(
    name: str,
    wanted: Wanted,
    base: Base,
    machine: Machine,
    language: str,
    length: int,
    sequences: int,
    checkpointing: bool,
) -> str:
    numbers = STAGES[name]
    first, several = name == _runs(wanted)[0], len(numbers) > 1
    recipe = (recipes.directory() / name).read_text(encoding="utf-8")
    values: dict[str, Any] = {
        **({"base_model": STARTED if wanted.start else base.name} if first else {}),
        "global_batch_size": sequences * machine.processes,
        "sequence_len": length,
        "max_steps": wanted.steps,
        "warmup_steps": min(10, wanted.steps // 10),
        "micro_batch_size": 1,
        "learning_rate": base.learning_rate,
        "gradient_checkpointing": checkpointing,
    }
    if machine.is_cpu:
        values |= {"bf16": False, "tf32": False, "attn_implementation": "sdpa", "optimizer": "adamw_torch"}
        recipe = edits.without(
            recipe, "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory"
        )
    comments = {
        "gradient_checkpointing": "" if machine.is_cpu else f"by `axolotl eeve plan`, for {machine}",
        "base_model": f"what `start` in pipeline.yml makes of {base.name}" if wanted.start and first else "",
        "until_converged": 'the paper\'s "until the loss converged", by a rule of ours',
    }
    recipe = edits.changed(recipe, values | ({"until_converged": {}} if several else {}), comments)
    if several and base.tied:
        note = "untie: true    # its two embedding matrices are one; made two, all stages make sense"
        recipe = edits.below(recipe, "global_batch_size", note)
    if several:
        gigabytes = 2 * base.parameters / 1e9
        recipe = edits.changed(recipe, {"save_stages": "last"}).replace(
            "all: 21 GB for each", f"all: {gigabytes:,.1f} GB for each"
        )
    if machine.is_cpu and not several:
        kernels = ("lora_qkv_kernel", "lora_o_kernel", "lora_mlp_kernel", "lora_embedding_kernel")
        recipe = edits.below(recipe, "lora_target_linear", *(f"{each}: false" for each in kernels))
    stages = f"Stages {numbers[0]} to {numbers[-1]} of 7" if several else f"Stage {numbers[0]} of 7"
    return edits.headed(
        recipe,
        f"{'One stage instead of seven' if wanted.short else stages}: {language} for {base.name}, on {machine}",
        "",
        f"Run, in this directory:  axolotl train {name}    (`axolotl eeve run pipeline.yml` does)",
        *([] if several else [f"Then:                    axolotl merge-lora {name}"]),
    )


def _with_batches(name: str, recipe: str, sizes: Mapping[str, int]) -> str:
    mine = {number: sizes[str(number)] for number in STAGES[name]}
    comment = "sequences at a time that fit; the accumulation follows from global_batch_size"
    recipe = edits.changed(recipe, {"micro_batch_size": mine[STAGES[name][0]]}, {"micro_batch_size": comment})
    if len(mine) > 1 and len(set(mine.values())) > 1:
        of_the_run = mine[STAGES[name][0]]
        stages = [
            number if size == of_the_run else {"stage": number, "micro_batch_size": size}
            for number, size in mine.items()
        ]
        recipe = edits.changed(recipe, {"stages": stages})
    return recipe


def _rendered(wanted: Wanted, base: Base, machine: Machine, all_texts: list[Text]) -> dict[str, str]:
    """Tokenizer, corpus, pipeline and the page that tells of them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eeve_axolotl.project"),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["yaml"] = edits.scalar
    given = {
        "base": base.name,
        "tied": base.tied,
        "gigabytes": 2 * base.parameters / 1e9,
        "start": STARTED if wanted.start else None,
        "language": all_texts[0].language,
        "texts": all_texts,
        "sources": {text.group: texts.as_yaml(text, wanted.directory) for text in all_texts},
        "shares": _shares(all_texts),
        "new_tokens": wanted.new_tokens,
        "length": wanted.sequence_len or min(LENGTH, base.longest or LENGTH),
        "held_out": texts.held_out_share(all_texts),
        "shards": texts.shards(all_texts),
        "workers": max(1, min(8, (os.cpu_count() or 1) // 2)),
        "machine": machine,
        "runs": _runs(wanted),
        "short": wanted.short,
        "directory": wanted.directory,
    }
    names = ("tokenizer.yml", "corpus.yml", "pipeline.yml", "README.md")
    return {name: environment.get_template(f"{name}.jinja").render(given) for name in names}


def _shares(all_texts: list[Text]) -> dict[str, float]:
    """Of the corpus: four fifths for the new language, the rest in equal parts."""
    kept = all_texts[1:]
    if not kept:
        return {all_texts[0].group: 1.0}
    each = round(0.2 / len(kept), 4)
    return {all_texts[0].group: round(1 - each * len(kept), 4), **{text.group: each for text in kept}}


def _notes(all_texts: list[Text], machine: Machine) -> list[str]:
    notes = []
    if len(all_texts) == 1:
        notes.append(
            "there is no text in a language that the base knows, so it may forget: --keep English=PATH adds some"
        )
    if not all_texts[0].has_stopwords:
        notes.append(
            f"no function words of {all_texts[0].language.name} are known here, so that filter of the corpus is off; give "
            "yours under `filters: {stopwords: [...]}` in corpus.yml"
        )
    if not machine.is_cpu:
        notes.append("the stages use flash-attention: pip install 'eeve-axolotl[flash-attn,corpus]'")
    return notes
