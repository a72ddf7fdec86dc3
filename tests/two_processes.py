"""Several stages in one run of our trainer, below Axolotl's command, which starts several processes on GPUs only.

torchrun --nproc-per-node 2 two_processes.py DIRECTORY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from axolotl.core.training_args import AxolotlTrainingArguments
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from transformers import default_data_collator

from eeve_axolotl import progress
from eeve_axolotl.args import EEVESettings
from eeve_axolotl.run import StageRun
from eeve_axolotl.trainer import EEVETrainer
from eeve_axolotl.vocabulary import Vocabulary
from tests.rows.helpers import BASE, VOCAB, batches, tiny_model
from tests.trainer import text_runs

STAGES, STEPS, LENGTH, SEQUENCES = (1, 2, 5), 4, 16, 64


def trainer_of(directory: Path, batch: int, head_loss: str = "chunked") -> EEVETrainer:
    """A trainer of the stages into `directory`, `batch` sequences in a step on each process."""
    model = tiny_model()
    settings = EEVESettings.model_validate(
        {"stages": [*STAGES], "save_stages": "all", "head_loss": head_loss}
    )
    run = StageRun(settings, vocabulary=Vocabulary(BASE, VOCAB, VOCAB))
    run.freeze(model)
    (ids,) = batches(1, SEQUENCES, LENGTH)
    arguments = AxolotlTrainingArguments(
        output_dir=str(directory),
        use_cpu=True,
        max_steps=STEPS,
        per_device_train_batch_size=batch,
        learning_rate=1e-2,
        weight_decay=0.1,
        # Adam would turn rounding noise in tiny gradients into whole steps.
        adam_epsilon=1e-4,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="steps",
        save_steps=2,
        report_to=[],
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"input_ids": ids.tolist(), "labels": ids.tolist()})
    trainer = EEVETrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        eval_dataset=data,
        data_collator=default_data_collator,
        eval_data_collator=default_data_collator,
    )
    trainer.axolotl_cfg = DictDefault(sequence_len=LENGTH)
    trainer.eeve_run = run
    return trainer


def train(directory: Path, batch: int, head_loss: str = "chunked") -> None:
    """Train the stages."""
    trainer = trainer_of(directory, batch, head_loss)
    trainer.train()
    trainer.save_model(str(directory))
    trainer.eeve_run.write_record(directory)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), batch=2)
    os.environ.pop(progress.VARIABLE, None)  # what follows is no part of that run
    text_runs.two_processes(Path(sys.argv[1]) / "text")
