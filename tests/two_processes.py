"""Several stages in one run of our trainer, below Axolotl's command, which starts several processes on GPUs only.

torchrun --nproc-per-node 2 two_processes.py DIRECTORY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from eeve_axolotl import progress
from eeve_axolotl.args import EEVESettings
from eeve_axolotl.run import StageRun
from eeve_axolotl.trainer import EEVETrainer
from eeve_axolotl.vocabulary import Vocabulary
from tests.rows.helpers import BASE, VOCAB, tiny_model
from tests.rows.ways import leave
from tests.trainer import text_runs
from tests.trainer.trainers import trainer_on

STAGES, STEPS, SEQUENCES = (1, 2, 5), 4, 64
RATES = {"input_learning_rate": 2e-2, "output_learning_rate": 5e-3}  # beside 1e-2


def trainer_of(directory: Path, batch: int, **block: str) -> EEVETrainer:
    """A trainer of the stages into `directory`, `batch` sequences in a step on each process; `block` has more keys."""
    model = tiny_model()
    settings = EEVESettings.model_validate({"stages": [*STAGES], "save_stages": "all", **RATES, **block})
    run = StageRun(settings, vocabulary=Vocabulary(BASE, VOCAB, VOCAB))
    run.freeze(model)
    return trainer_on(
        model,
        run,
        directory,
        batch,
        SEQUENCES,
        max_steps=STEPS,
        logging_steps=1,
        save_strategy="steps",
        save_steps=2,
    )


def train(directory: Path, batch: int, **block: str) -> None:
    """Train the stages."""
    trainer = trainer_of(directory, batch, **block)
    trainer.train()
    trainer.save_model(str(directory))
    trainer.eeve_run.write_record(directory)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), batch=2)
    os.environ.pop(progress.VARIABLE, None)  # what follows is no part of that run
    train(Path(sys.argv[1]) / "fp8", batch=2, frozen_precision="fp8")
    text_runs.two_processes(Path(sys.argv[1]) / "text")
    leave()
