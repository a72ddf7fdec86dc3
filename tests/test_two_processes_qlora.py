"""Stages 6 and 7 over two processes (DDP on the CPU, gloo): what trains, what is frozen, and what the merge makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests import two_processes_qlora
from tests.conftest import ROOT
from tests.rows.helpers import VOCAB, tiny_model

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def directories(tmp_path_factory) -> tuple[Path, Path]:
    """What two processes left, and what one with batches of the same sequences did."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    tiny_model(**two_processes_qlora.SIZES).save_pretrained(two / "base")
    # As `accelerate launch --cpu` sets it; without, each would train alone.
    on_cpus = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(Path(two_processes_qlora.__file__)), str(two)],
        env={**os.environ, **on_cpus, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    for stage in (6, 7):
        (one / str(stage)).mkdir()
        two_processes_qlora.train(two / "base", one / str(stage), stage, batch=4)
    return two, one


@pytest.fixture(params=[6, 7])
def stage(request) -> int:
    return request.param


def merged(directory: Path, stage: int) -> dict[str, torch.Tensor]:
    """The merged model as plain transformers loads it."""
    model, info = AutoModelForCausalLM.from_pretrained(
        directory / str(stage) / "merged", output_loading_info=True, dtype=torch.float32
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model.state_dict()


def test_both_processes_hold_the_same_trained_weights(directories, stage):
    first, second = (load_file(directories[0] / str(stage) / f"trained{rank}.safetensors") for rank in "01")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_frozen_did_not_move_and_the_record_says_so(directories, stage):
    record = json.loads((directories[0] / str(stage) / "eeve_stage.json").read_text())
    assert record["moved"] == {} and record["trained_and_unmoved"] == []
    assert record["fingerprint_before"] == record["fingerprint_after"]
    before = load_file(directories[0] / "base" / "model.safetensors")
    after = merged(directories[0], stage)
    for name, weight in before.items():
        moved = (weight != after[name]).reshape(len(weight), -1).any(1)
        if name in (TABLE, HEAD):
            assert int(moved.sum()) == (VOCAB if stage == 6 else 0)
        else:
            assert bool(moved.any()) == ("proj" in name)


def test_the_merged_model_is_what_was_trained(directories, stage):
    """Embeddings bit for bit; of each linear layer the base's matrix and the product of its adapter."""
    trained = load_file(directories[0] / str(stage) / "trained0.safetensors")
    base = load_file(directories[0] / "base" / "model.safetensors")
    after = merged(directories[0], stage)
    pairs = 0
    for name, weight in trained.items():
        plain = name.removeprefix("base_model.model.")
        if "lora_A" in name:
            other = trained[name.replace("lora_A", "lora_B")]
            expected = (
                base[plain.replace("lora_A.default.", "")] + 2 * other @ weight
            )  # lora_alpha 8, lora_r 4
            torch.testing.assert_close(
                after[plain.replace("lora_A.default.", "")], expected, rtol=0, atol=1e-6
            )
            pairs += 1
        elif "modules_to_save" in name:
            assert torch.equal(after[plain.replace("modules_to_save.default.", "")], weight)
    assert pairs == 14
    assert len(trained) == 2 * pairs + (2 if stage == 6 else 0)


def test_two_processes_train_as_one_does(directories, stage):
    ours, theirs = (merged(directory, stage) for directory in directories)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=2e-5)
