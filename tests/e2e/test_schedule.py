"""Several stages in one `axolotl train`: the same weights as runs of one stage each, and each ends when it should."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import SMALL
from tests.e2e.helpers import axolotl, lay_ground, write_recipe

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ground(tmp_path_factory, small_tokenizer_directory, small_tokenizer) -> Path:
    """A directory with `base`, `tokenizer` (extended) and a text."""
    return lay_ground(tmp_path_factory.mktemp("schedule"), small_tokenizer_directory, small_tokenizer)


def train(directory: Path, base_model: str = "./base", stage: int = 1, **keys) -> str:
    done = axolotl(
        directory, "train", write_recipe(directory, stage, base_model, **keys), "--launcher", "python"
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def steps(record_directory: Path) -> int:
    return json.loads((record_directory / "eeve_stage.json").read_text())["steps"]


def history(record_directory: Path) -> list[dict]:
    return json.loads((record_directory / "eeve_history.json").read_text())["steps"]


def tokens_per_step(record_directory: Path) -> int:
    return json.loads((record_directory / "eeve_history.json").read_text())["tokens_per_step"]


@pytest.fixture(scope="module")
def five(ground) -> str:
    """Stages 1 to 5 in one run."""
    settings = {"stages": [1, 2, 3, 4, 5], "save_stages": "all"}
    return train(ground, eeve=settings, output_dir="./five", gradient_checkpointing=True)


def test_five_stages_in_one_run_give_the_weights_of_five_runs(ground, five):
    base = "./base"
    for stage in range(1, 6):
        train(ground, base, stage, gradient_checkpointing=True)
        base = f"./stage{stage}"
        alone = load_file(ground / base / "model.safetensors")
        together = load_file(ground / "five" / (f"stage{stage}" if stage < 5 else "") / "model.safetensors")
        assert alone.keys() == together.keys()
        for name, weight in alone.items():
            assert torch.equal(weight, together[name]), (stage, name)


def test_each_stage_of_a_run_leaves_its_record(ground, five):
    for stage in range(1, 6):
        place = ground / "five" / (f"stage{stage}" if stage < 5 else "")
        record = json.loads((place / "eeve_stage.json").read_text())
        assert record["stage"] == str(stage) and not record["moved"]
        # As in the chain of single runs, each a step of 4 sequences further.
        assert record["text"]["from"]["sequences"] == (stage - 1) * 2 * 4
        assert f"stage {stage} ({stage} of 5 in this run)" in five


def test_only_the_newest_stage_is_kept_unless_asked(ground):
    train(ground, eeve={"stages": [1, 2, 3]}, output_dir="./three", max_steps=1)
    kept = [name for name in ("stage1", "stage2") if list((ground / "three" / name).glob("*.safetensors"))]
    assert kept == ["stage2"]


def test_a_stages_own_settings_are_its_own(ground):
    stages = [
        {"stage": 1, "max_steps": 3, "learning_rate": 0.5, "micro_batch_size": 2},
        {"stage": 2, "gradient_accumulation_steps": 2},
    ]
    log = train(ground, eeve={"stages": stages, "save_stages": "all"}, output_dir="./own", max_steps=1)
    assert steps(ground / "own/stage1") == 3 and steps(ground / "own") == 1
    assert "'learning_rate': '0.5'" in log and "'learning_rate': '0.01'" in log
    assert tokens_per_step(ground / "own/stage1") == 2 * 128
    assert tokens_per_step(ground / "own") == 4 * 128 * 2


def test_a_stages_own_batch_gives_the_weights_of_a_run_with_that_batch(ground):
    stages = [1, {"stage": 2, "micro_batch_size": 2}]
    keys = {"sample_packing": True}
    train(ground, eeve={"stages": stages, "save_stages": "all"}, output_dir="./own_batch", **keys)
    train(ground, "./own_batch/stage1", 2, output_dir="./own_batch_alone", micro_batch_size=2, **keys)
    together, alone = (
        load_file(ground / name / "model.safetensors") for name in ("own_batch", "own_batch_alone")
    )
    assert all(torch.equal(weight, together[name]) for name, weight in alone.items())


def test_a_token_budget_ends_a_stage(ground):
    train(ground, eeve={"stage": 1, "max_tokens": 3 * 4 * 128}, output_dir="./budget", max_steps=10)
    assert steps(ground / "budget") == 3


def test_a_global_batch_is_that_of_each_stage_of_a_run(ground):
    log = train(
        ground,
        eeve={"stages": [1, {"stage": 2, "micro_batch_size": 2}], "global_batch_size": 12},
        output_dir="./global",
        gradient_accumulation_steps=None,
        max_steps=1,
    )
    assert "12: 1 processes x micro_batch_size 4 x gradient_accumulation_steps 3" in log
    for place in ("global/stage1", "global"):
        history = json.loads((ground / place / "eeve_history.json").read_text())
        assert history["tokens_per_step"] == 12 * 128


def test_a_stage_whose_loss_is_flat_ends_early_and_one_that_falls_goes_on(ground):
    converged = {"window": 2, "min_improvement": 0.01, "patience": 2}
    log = train(
        ground,
        eeve={
            "stages": [{"stage": 1, "learning_rate": 1e-7}, 4],
            "until_converged": converged,
            "save_stages": "all",
        },
        output_dir="./converging",
        max_steps=12,
        learning_rate=0.05,
    )
    # A rate at which weights change and the loss does not: the first window sets the mark, two more do not beat it.
    assert steps(ground / "converging/stage1") < 12 and "the loss has converged" in log
    assert steps(ground / "converging") == 12


def test_an_optimiser_is_carried_over_a_boundary_only_when_asked(ground):
    weights = {}
    for keep in (False, True):
        settings = {"stages": [1, 3], "keep_optimizer": keep}
        train(ground, eeve=settings, output_dir=f"./keep{keep}", max_steps=3)
        weights[keep] = load_file(ground / f"keep{keep}" / "model.safetensors")["model.embed_tokens.weight"]
    assert not torch.equal(weights[False], weights[True])
    assert torch.equal(weights[False][:SMALL], weights[True][:SMALL])


def test_a_run_killed_after_a_boundary_goes_on_with_the_optimiser_and_schedule_it_keeps(ground):
    settings = {"stages": [1, 3], "keep_optimizer": True, "keep_schedule": True}
    keys = {"max_steps": 3, "lr_scheduler": "linear", "auto_resume_from_checkpoints": True}
    train(ground, eeve=settings, output_dir="./kept", **keys)
    rates = [step["learning_rate"] for name in ("kept/stage1", "kept") for step in history(ground / name)]
    assert rates == pytest.approx([0.01 * (6 - step) / 6 for step in range(6)])
    shutil.copytree(ground / "kept/stage1", ground / "resumed/stage1")
    log = train(ground, eeve=settings, output_dir="./resumed", **keys)
    assert "stage 1 is done: going on after it" in log
    whole, resumed = (load_file(ground / name / "model.safetensors") for name in ("kept", "resumed"))
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def test_held_out_text_is_scored_at_each_stages_end_and_in_between(ground):
    evaluate = {"texts": {"Korean": "./text.jsonl"}, "every_steps": 2, "limit": 3}
    log = train(
        ground,
        eeve={"stages": [1, 2], "evaluate": evaluate},
        output_dir="./scored",
        max_steps=3,
        use_tensorboard=True,
    )
    scores = re.findall(r"'eeve/Korean/bits_per_byte': '?([0-9.]+)", log)
    assert len(scores) == 2 * 2  # after step 2 and at the end, of either stage
    for number, stage in enumerate(("stage1", "stage2")):
        tracked = EventAccumulator(str(ground / "scored/runs" / stage)).Reload()
        figures = {name for name in tracked.Tags()["scalars"] if name.startswith("train/eeve/Korean/")}
        assert {name.removeprefix("train/eeve/Korean/") for name in figures} == {
            "bits_per_byte",
            "tokens_per_character",
            "new_tokens/accuracy",
            "new_tokens/first_subword_instead",
            "new_tokens/share_of_predictions",
        }
        bits = [(each.step, each.value) for each in tracked.Scalars("train/eeve/Korean/bits_per_byte")]
        assert [step for step, _ in bits] == [2, 3]
        logged = scores[2 * number : 2 * number + 2]  # with four digits
        assert [float(f"{value:.4g}") for _, value in bits] == [float(score) for score in logged]
        assert {each.value for each in tracked.Scalars("train/eeve/stage")} == {number + 1}
        assert max(each.value for each in tracked.Scalars("train/eeve/step")) == 3 * (number + 1)
    alone = train(ground, eeve={"stages": [1, 2]}, output_dir="./unscored", max_steps=3)
    assert "bits_per_byte" not in alone
    scored, unscored = (load_file(ground / name / "model.safetensors") for name in ("scored", "unscored"))
    assert all(torch.equal(weight, unscored[name]) for name, weight in scored.items())
