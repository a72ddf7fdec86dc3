"""Stages 6 and 7 in our trainer with Axolotl's adapters on a model in 4 bits, below Axolotl's command.

torchrun --nproc-per-node 2 two_processes_qlora.py DIRECTORY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from axolotl.loaders.adapter import load_adapter
from axolotl.utils.dict import DictDefault
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from eeve_axolotl.args import EEVESettings
from eeve_axolotl.run import StageRun
from eeve_axolotl.vocabulary import Vocabulary
from tests.rows.helpers import BASE, VOCAB
from tests.rows.ways import leave
from tests.trainer.trainers import trainer_on

STEPS, SEQUENCES = 3, 32
# Blocks of 64 numbers have a scale of their own in 4 bits.
SIZES = {"hidden_size": 64, "intermediate_size": 64}


def train(base: Path, directory: Path, stage: int, batch: int) -> None:
    """Train a stage into `directory`, `batch` sequences in a step on each process, and merge its adapter."""
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=BitsAndBytesConfig(load_in_4bit=True), dtype=torch.float32
    )
    run = StageRun(EEVESettings(stage=stage), vocabulary=Vocabulary(BASE, VOCAB, VOCAB))
    cfg = DictDefault(
        base_model=str(base), adapter="qlora", load_in_4bit=True, lora_r=4, lora_alpha=8, lora_dropout=0.0
    )
    cfg.lora_target_linear = True
    run.set_implied_keys(cfg)
    run.keep_adapters_off(cfg, model)
    torch.manual_seed(0)
    model, _ = load_adapter(model, cfg, "qlora")
    run.freeze(model)
    trainer = trainer_on(model, run, directory, batch, SEQUENCES, max_steps=STEPS, save_strategy="no")
    trainer.train()
    rank = os.environ.get("RANK", "0")
    trained = run.frozen.trained_parameters().items()
    save_file(
        {name: each.detach().clone() for name, each in trained}, directory / f"trained{rank}.safetensors"
    )
    trainer.save_model(str(directory))
    run.write_record(directory)
    if rank == "0":
        merge(base, directory)


def merge(base: Path, directory: Path) -> None:
    """As `axolotl merge-lora` does with `merge_method: legacy`."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    PeftModel.from_pretrained(model, str(directory)).merge_and_unload().save_pretrained(directory / "merged")


def main(directory: Path) -> None:
    """Both stages."""
    for stage in (6, 7):
        (directory / str(stage)).mkdir(exist_ok=True)
        train(directory / "base", directory / str(stage), stage, batch=2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    leave()
