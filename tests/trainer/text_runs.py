"""Stages of our trainer on a small packed corpus, below Axolotl's command; says which documents each step read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from axolotl.core.training_args import AxolotlTrainingArguments
from axolotl.monkeypatch.data.batch_dataset_fetcher import apply_multipack_dataloader_patch
from axolotl.utils.collators import BatchSamplerDataCollatorForSeq2Seq, DataCollatorForSeq2Seq
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from eeve_axolotl.args import EEVESettings
from eeve_axolotl.records import WHOLE, last_whole_checkpoint
from eeve_axolotl.run import StageRun
from eeve_axolotl.trainer import EEVETrainer
from eeve_axolotl.vocabulary import Vocabulary
from tests.rows.helpers import BASE, VOCAB, tiny_model

LENGTH, DOCUMENTS, STEPS = 32, 40, 14
"""Tokens of a sequence; about 20 sequences a pass; with 4 of them in a step, nearly three passes."""

EVENTS = (
    "on_step_begin",
    "on_substep_end",
    "on_pre_optimizer_step",
    "on_step_end",
    "inside a checkpoint",
    "on_save",
)


class Killed(Exception):
    """In place of a signal."""


class KillAt(TrainerCallback):
    """Ends the process, as it were, at one event of one step."""

    def __init__(self, step: int, event: str):
        self.step = step
        if event != "inside a checkpoint":
            setattr(self, event, self._at)

    def _at(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


class Watched(EEVETrainer):
    """Notes the documents of each optimiser step, and can be killed inside a checkpoint."""

    documents: dict[int, list[int]]
    kill_at: tuple[int, str] | None = None

    def training_step(self, model, inputs, *args, **kwargs):
        step, ids = self.state.global_step, inputs["input_ids"].flatten().tolist()
        if self._in_step != step:
            self._in_step, self.documents[step] = step, []
        self.documents[step] += [
            (one - BASE) * (VOCAB - BASE) + other - BASE
            for one, other in itertools.pairwise(ids)
            if one >= BASE and other >= BASE
        ]
        return super().training_step(model, inputs, *args, **kwargs)

    _in_step = -1

    def _save_checkpoint(self, *args, **kwargs):
        super()._save_checkpoint(*args, **kwargs)
        if self.kill_at == (self.state.global_step, "inside a checkpoint"):
            for checkpoint in Path(self.args.output_dir).glob(f"checkpoint-{self.state.global_step}"):
                (checkpoint / WHOLE).unlink(missing_ok=True)  # written last
            self.accelerator.wait_for_everyone()
            raise Killed


def corpus(count: int = DOCUMENTS, seed: int = 0) -> Dataset:
    """Tokenized documents, each with two new tokens at its start that number it, as Axolotl prepares them."""
    draw = np.random.RandomState(seed)
    texts = [
        [BASE + number // (VOCAB - BASE), BASE + number % (VOCAB - BASE), *draw.randint(1, BASE, length)]
        for number, length in enumerate(draw.randint(2, 28, count))
    ]
    texts = [[int(token) for token in each] for each in texts]
    return Dataset.from_dict(
        {
            "input_ids": texts,
            "labels": texts,
            "attention_mask": [[1] * len(each) for each in texts],
            "position_ids": [[*range(len(each))] for each in texts],
            "length": [len(each) for each in texts],
        }
    )


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, **{f"t{number}": number for number in range(1, VOCAB)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>")), pad_token="<pad>"
    )


def train(
    directory: Path,
    stages: list,
    base: Path | None = None,
    kill_at: tuple[int, str] | None = None,
    data: Dataset | None = None,
    text: str = "continue",
    **keys,
) -> dict[int, list[int]]:
    """Train `stages` from `base` (else a fresh model) into `directory`, going on from what is there.

    Returns the documents that each step of the last stage read in this process; raises Killed at `kill_at`.
    """
    apply_multipack_dataloader_patch()
    # Dropout, so that random numbers have to be the same too.
    model = AutoModelForCausalLM.from_pretrained(base) if base else tiny_model(attention_dropout=0.1)
    one = {"stage": stages[0]} if len(stages) == 1 else {"stages": stages, "save_stages": "all"}
    settings = EEVESettings.model_validate({**one, "text": text})
    run = StageRun(settings, vocabulary=Vocabulary(BASE, VOCAB, VOCAB), auto_resume=True)
    run.freeze(model.train())
    keys = {
        "max_steps": STEPS,
        "sample_packing": True,
        "multipack_real_batches": True,  # as where the attention cannot tell documents apart, on a CPU
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "adam_epsilon": 1e-4,  # or Adam would turn rounding noise in tiny gradients into whole steps
        **keys,
    }
    arguments = AxolotlTrainingArguments(
        output_dir=str(directory), use_cpu=True, num_train_epochs=1000, max_seq_length=LENGTH,
        lr_scheduler_type="constant", logging_steps=1, save_strategy="steps", save_steps=2, report_to=[],
        disable_tqdm=True, seed=7, **keys,
    )  # fmt: skip
    collator = BatchSamplerDataCollatorForSeq2Seq if keys["sample_packing"] else DataCollatorForSeq2Seq
    trainer = Watched(
        model=model,
        args=arguments,
        train_dataset=corpus() if data is None else data,
        data_collator=collator(tokenizer(), pad_to_multiple_of=LENGTH),
        callbacks=[KillAt(*kill_at)] if kill_at else [],
    )
    trainer.documents, trainer.kill_at = {}, kill_at
    trainer.axolotl_cfg = DictDefault(sequence_len=LENGTH, base_model=str(base) if base else None)
    trainer.eeve_run = run
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(directory) if len(stages) == 1 else None)
    trainer.save_model(str(directory))
    run.write_record(directory)
    return trainer.documents


def train_on(begin: Callable, kills: list[tuple[int, str]]) -> dict[int, list[int]]:
    """Train with `begin(kill_at)`, killed at each of `kills` that is reached in turn, to the end."""
    for kill_at in [*kills, None]:
        try:
            return begin(kill_at)
        except Killed:
            pass
    raise AssertionError("the run without a kill was killed")


STAGES_OF_TWO = ({"stage": 1, "max_steps": 5}, {"stage": 5, "max_steps": 6})


def two_processes(directory: Path) -> None:
    """Stages with half the sequences of a step on each process, whole and killed at some moments."""
    # transformers reads an optimiser's state to "cpu:0" then, a place that torch does not know.
    torch.serialization.register_package(
        1, lambda storage: None, lambda storage, place: storage if place == "cpu:0" else None
    )
    keys = {"per_device_train_batch_size": 1}
    read = train(directory / "whole", [*STAGES_OF_TWO], **keys)
    (directory / f"read{torch.distributed.get_rank()}.json").write_text(json.dumps(read))
    kills = [(3, "on_step_end"), (4, "inside a checkpoint"), (5, "on_step_begin")]
    train_on(lambda kill_at: train(directory / "killed", [*STAGES_OF_TWO], kill_at=kill_at, **keys), kills)
