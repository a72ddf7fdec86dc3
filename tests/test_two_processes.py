"""Several stages in one run over two processes (DDP on the CPU, gloo) give what one process gives, killed or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from eeve_axolotl import progress
from eeve_axolotl.losses import linear_cross_entropy
from tests import two_processes
from tests.conftest import ROOT
from tests.rows.helpers import BASE, VOCAB, tiny_model
from tests.trainer import text_runs
from tests.trainer.trainers import LENGTH

PROGRESS = "progress.jsonl"
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Logits(TorchDispatchMode):
    """For how many tokens logits are made at once, at most."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "softmax" in str(function):
            self.largest = max(self.largest, result.numel() // result.shape[-1])
        return result


@pytest.fixture(scope="module")
def directories(tmp_path_factory) -> tuple[Path, Path]:
    """What two processes left, and what one with batches of the same sequences, and the plain loss, did."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    # As `accelerate launch --cpu` sets it; without, each would train alone.
    on_cpus = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(Path(two_processes.__file__)), str(two)],
        env={**os.environ, **on_cpus, "PYTHONPATH": str(ROOT), progress.VARIABLE: str(two / PROGRESS)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    two_processes.train(one, batch=4, head_loss="plain")
    two_processes.train(one / "fp8", batch=4, frozen_precision="fp8")
    return two, one


def places(directory: Path) -> list[Path]:
    *before, _ = two_processes.STAGES
    return [*(directory / f"stage{stage}" for stage in before), directory]


def test_two_processes_give_the_weights_of_one(directories):
    for two, one in zip(*map(places, directories), strict=True):
        ours, theirs = (load_file(place / "model.safetensors") for place in (two, one))
        assert ours.keys() == theirs.keys()
        for name, weight in ours.items():
            torch.testing.assert_close(weight, theirs[name], rtol=0, atol=2e-5)


def test_each_matrix_has_its_rate_in_every_process_and_in_what_is_logged(directories):
    inputs, outputs = {"input_embeddings": 2e-2}, {"output_embeddings": 5e-3}
    expected = (inputs, outputs, {**inputs, **outputs})
    for directory in directories:
        for place, own in zip(places(directory), expected, strict=True):
            record = json.loads((place / "eeve_stage.json").read_text())
            assert record["learning_rates"] == {"others": 1e-2, **own}
            logged = {name.replace("embeddings", "learning_rate"): rate for name, rate in own.items()}
            for step in json.loads((place / "eeve_history.json").read_text())["steps"]:
                assert step == {
                    "step": step["step"],
                    "loss": step["loss"],
                    "learning_rate": 1e-2,
                    **logged,
                }


def test_frozen_rows_are_the_same_bits_after_every_stage(directories):
    before = {name: weight.clone() for name, weight in tiny_model().state_dict().items()}
    for place, (table_start, head_start) in zip(
        places(directories[0]), ((BASE, None), (None, BASE), (BASE, 0)), strict=True
    ):
        after = load_file(place / "model.safetensors")
        for name, start in ((TABLE, table_start), (HEAD, head_start)):
            assert torch.equal(before[name][:start], after[name][:start])
            assert start is None or not torch.equal(before[name][start:], after[name][start:])
        before = after


def test_with_frozen_layers_in_fp8_two_processes_give_the_weights_of_one(directories):
    base = tiny_model().state_dict()
    for two, one in zip(*(map(places, (each / "fp8" for each in directories))), strict=True):
        ours, theirs = (load_file(place / "model.safetensors") for place in (two, one))
        assert ours.keys() == theirs.keys() == base.keys()
        for name, weight in ours.items():
            if name in (TABLE, HEAD):
                # Gradients are summed in another order; a few values then fall to the next of 8 bits.
                torch.testing.assert_close(weight, theirs[name], rtol=0, atol=2e-3)
            else:
                assert torch.equal(weight, base[name]) and torch.equal(theirs[name], base[name])
        record = json.loads((two / "eeve_stage.json").read_text())
        assert record["frozen_precision"]["matrices"] == 14 and record["moved"] == {}
    plain = load_file(directories[1] / "model.safetensors")
    assert not torch.equal(plain[TABLE], theirs[TABLE])


def test_two_processes_read_the_text_that_one_reads(directories, one_thread):
    two, one = (directory / "text" for directory in directories)
    read = text_runs.train(one, [*text_runs.STAGES_OF_TWO])
    shares = [json.loads((two / f"read{rank}.json").read_text()) for rank in range(2)]
    assert {step: sorted(documents) for step, documents in read.items()} == {
        step: sorted(share for each in shares for share in each[str(step)]) for step in read
    }
    assert all(share[str(step)] for step in read for share in shares)
    records = [json.loads((each / "eeve_stage.json").read_text())["text"] for each in (two / "whole", one)]
    assert records[0] == records[1] and records[0]["to"]["passes"] >= 1


def test_killed_on_two_processes_stages_end_with_the_same_weights(directories):
    whole, killed = (directories[0] / "text" / name for name in ("whole", "killed"))
    for place in ("stage1", "."):
        ours, theirs = (load_file(each / place / "model.safetensors") for each in (whole, killed))
        assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
        records = [
            json.loads((each / place / "eeve_stage.json").read_text())["text"] for each in (whole, killed)
        ]
        assert records[0] == records[1]


def test_every_stage_leaves_one_record_and_its_loss(directories):
    for place, stage in zip(places(directories[0]), two_processes.STAGES, strict=True):
        record = json.loads((place / "eeve_stage.json").read_text())
        history = json.loads((place / "eeve_history.json").read_text())
        assert (record["stage"], record["steps"], record["moved"]) == (str(stage), two_processes.STEPS, {})
        assert record["head_loss"] == "chunked"
        assert history["tokens_per_step"] == 2 * 2 * LENGTH
        assert len(history["steps"]) == two_processes.STEPS


def test_the_main_process_tells_of_every_step_counted_over_all_stages(directories):
    told = [*progress.Reader(directories[0] / PROGRESS).new()]
    stages, steps = two_processes.STAGES, two_processes.STEPS
    assert [each.step for each in told] == [*range(1, len(stages) * steps + 1)]
    assert [each.stage for each in told] == [str(stage) for stage in stages for _ in range(steps)]
    assert {(each.max_steps, each.tokens_per_step) for each in told} == {(steps, 2 * 2 * LENGTH)}
    assert all(each.loss > 0 for each in told)


def test_an_evaluation_makes_its_loss_as_training_does_and_whole_logits_for_who_wants_them(
    tmp_path, monkeypatch
):
    """Where micro batches have grown to what training holds, whole logits would not fit."""
    monkeypatch.setitem(linear_cross_entropy._ELEMENTS, "cpu", 32 * VOCAB)
    monkeypatch.setattr(linear_cross_entropy, "_LEAST_TOKENS", 32)
    losses, largest = {}, {}
    for head_loss in ("plain", "chunked"):
        trainer = two_processes.trainer_of(tmp_path, batch=8, head_loss=head_loss)
        with Logits() as logits:
            losses[head_loss] = trainer.evaluate()["eval_loss"]
        largest[head_loss] = logits.largest
    assert losses["chunked"] == pytest.approx(losses["plain"], rel=1e-6)
    assert largest["chunked"] < largest["plain"] == 8 * LENGTH
    inputs = {name: torch.tensor(each) for name, each in trainer.eval_dataset[:2].items()}
    _, found, _ = trainer.prediction_step(trainer.model, inputs, prediction_loss_only=False)
    assert found.shape == (2, LENGTH, VOCAB)
