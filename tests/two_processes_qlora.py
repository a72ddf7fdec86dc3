"""Stages 6 and 7 in our trainer with Axolotl's adapters on a model in 4 bits, below Axolotl's command.

torchrun --nproc-per-node 2 two_processes_qlora.py DIRECTORY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from axolotl.core.training_args import AxolotlTrainingArguments
from axolotl.loaders.adapter import load_adapter
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, default_data_collator

from eeve_axolotl.args import EEVESettings
from eeve_axolotl.run import StageRun
from eeve_axolotl.trainer import EEVETrainer
from eeve_axolotl.vocabulary import Vocabulary
from tests.rows.helpers import BASE, VOCAB, batches

STEPS, LENGTH, SEQUENCES = 3, 16, 32
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
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"input_ids": ids.tolist(), "labels": ids.tolist()})
    trainer = EEVETrainer(
        model=model, args=arguments, train_dataset=data, data_collator=default_data_collator,
        eval_data_collator=default_data_collator,
    )  # fmt: skip
    trainer.axolotl_cfg = DictDefault(sequence_len=LENGTH)
    trainer.eeve_run = run
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
