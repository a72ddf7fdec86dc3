"""Running the `axolotl` command itself on a CPU, and the recipe that all end-to-end tests vary."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import ROOT, SMALL, extended, tiny_llama
from tests.e2e.commands import ENVIRONMENT, Done, Server

AXOLOTL = Path(sys.executable).with_name("axolotl")

TEXT = "안녕, 학교는 지금 조용하다. The school is quiet now. "

# The demo's settings; weight decay and a high rate, so that a row that could move does.
RECIPE = {
    "plugins": ["eeve_axolotl.EEVEPlugin"],
    "trainer_cls": "eeve_axolotl.trainer.EEVETrainer",
    "datasets": [{"path": "./text.jsonl", "type": "completion"}],
    "dataset_prepared_path": "./prepared",
    "dataset_num_proc": 1,
    "val_set_size": 0,
    "sequence_len": 128,
    "sample_packing": True,
    "pad_to_sequence_len": True,
    "max_steps": 2,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-2,
    "lr_scheduler": "constant",
    "optimizer": "adamw_torch",
    "weight_decay": 0.1,
    "bf16": False,
    "fp16": False,
    "tf32": False,
    "attn_implementation": "sdpa",
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "logging_steps": 1,
    "seed": 42,
}

QLORA = {
    "adapter": "qlora",
    "load_in_4bit": True,
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "lora_target_linear": True,
    # Triton kernels need a GPU.
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
    "lora_mlp_kernel": False,
    "lora_embedding_kernel": False,
}


def lay_ground(
    directory: Path, tokenizer_directory: Path, tokenizer, *, hidden_size: int = 16, lines: int = 60
) -> Path:
    """A `base` with the small tokenizer, an extended `tokenizer`, and a `text.jsonl` of so many lines; returns where."""
    shutil.copytree(tokenizer_directory, directory / "base")
    tiny_llama(SMALL, hidden_size=hidden_size).save_pretrained(directory / "base")
    extended(tokenizer, ["안녕", "▁학교", "▁지금", "▁조용"]).save_pretrained(directory / "tokenizer")
    texts = (json.dumps({"text": TEXT * 5 + str(number)}) + "\n" for number in range(lines))
    (directory / "text.jsonl").write_text("".join(texts), encoding="utf-8")
    return directory


def write_recipe(directory: Path, stage: int, base_model: str, **keys) -> str:
    """Write `stage<n>.yml`, a recipe for one stage on a CPU, and return its name.

    Paths in it are relative to `directory`, where `axolotl` is to be run.
    """
    recipe = {
        "base_model": base_model,
        "tokenizer_config": "./tokenizer",
        "eeve": {"stage": stage},
        "output_dir": f"./stage{stage}",
        **RECIPE,
        **(QLORA if stage >= 6 else {}),
        **keys,
    }
    name = f"stage{stage}.yml"
    (directory / name).write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return name


@functools.cache
def _server() -> Server:
    """Started by the first command, ended with the tests."""
    server = Server().start()
    atexit.register(server.stop)
    return server


def axolotl(
    directory: Path,
    *arguments: str,
    first_on_path: Path | None = None,
    timeout: int = 180,
    file_limit: int | None = None,
) -> Done:
    """Run `axolotl` in `directory` with this tree's package; its output, stderr with stdout, is `.stdout`.

    With `file_limit`, no file that it writes can be larger, in bytes: what a full disk does.
    With `first_on_path`, which goes before everything else on its PYTHONPATH, the command starts as the
    console script does; else it is forked from a server that has imported Axolotl (see commands.py).
    """
    if first_on_path is None:
        return _server().run([*arguments], directory, file_limit)
    path = [str(first_on_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [str(AXOLOTL), *arguments],
        cwd=directory,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return Done(done.returncode, done.stdout)


def run(directory: Path, *arguments: str) -> str:
    """What `axolotl` prints in `directory`, if it ends well."""
    done = axolotl(directory, *arguments)
    assert done.returncode == 0, f"axolotl {' '.join(arguments)}\n{done.stdout[-4000:]}"
    return done.stdout


def begin(directory: Path, *arguments: str) -> int:
    """Start `axolotl` in `directory` and go on; the process id, which is its process group's too."""
    return _server().begin([*arguments], directory, directory / "axolotl.log")


def end() -> int:
    """The exit status of the command that was begun last."""
    return _server().end()
