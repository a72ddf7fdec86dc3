"""Our trainer below Axolotl's command, as the tests with several processes start it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axolotl.core.training_args import AxolotlTrainingArguments
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from transformers import default_data_collator

from eeve_axolotl.run import StageRun
from eeve_axolotl.trainer import EEVETrainer
from tests.rows.helpers import batches

LENGTH = 16  # tokens of a sequence


def trainer_on(
    model, run: StageRun, directory: Path, batch: int, sequences: int, **arguments: Any
) -> EEVETrainer:
    """A trainer of `run` into `directory` on so many random sequences, `batch` of them in a step on each process.

    A high rate and weight decay, so that a row that could move does.
    """
    (ids,) = batches(1, sequences, LENGTH)
    data = Dataset.from_dict({"input_ids": ids.tolist(), "labels": ids.tolist()})
    trainer = EEVETrainer(
        model=model,
        args=AxolotlTrainingArguments(
            output_dir=str(directory),
            use_cpu=True,
            per_device_train_batch_size=batch,
            learning_rate=1e-2,
            weight_decay=0.1,
            # Adam would turn rounding noise in tiny gradients into whole steps.
            adam_epsilon=1e-4,
            lr_scheduler_type="constant",
            report_to=[],
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=data,
        eval_dataset=data,
        data_collator=default_data_collator,
        eval_data_collator=default_data_collator,
    )
    trainer.axolotl_cfg = DictDefault(sequence_len=LENGTH)
    trainer.eeve_run = run
    return trainer
