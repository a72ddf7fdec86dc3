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


RATES = {"input_learning_rate": 3e-2, "output_learning_rate": 3e-3}
SLOPE = {"lr_scheduler": "linear", "warmup_steps": 2, "max_steps": 4}


def test_with_a_rate_for_each_matrix_too_stages_of_one_run_give_the_weights_of_runs(ground):
    stages = [1, {"stage": 5, "output_learning_rate": 1e-3}]
    train(ground, eeve={"stages": stages, **RATES, "save_stages": "all"}, output_dir="./rates", **SLOPE)
    inputs = {"input_learning_rate": RATES["input_learning_rate"]}
    train(ground, stage=1, eeve={"stage": 1, **inputs}, output_dir="./rates1", **SLOPE)
    block = {"stage": 5, **inputs, "output_learning_rate": 1e-3}
    train(ground, "./rates1", 5, eeve=block, output_dir="./rates5", **SLOPE)
    for place, alone in (("rates/stage1", "rates1"), ("rates", "rates5")):
        ours, theirs = (load_file(ground / each / "model.safetensors") for each in (place, alone))
        assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
        assert history(ground / place) == history(ground / alone)
    settings = json.loads((ground / "rates5/eeve_history.json").read_text())["settings"]
    assert settings["eeve"]["output_learning_rate"] == 1e-3
    shape = [0.0, 0.5, 1.0, 0.5]
    steps = history(ground / "rates")
    for key, peak in {
        "learning_rate": 1e-2,
        "input_learning_rate": 3e-2,
        "output_learning_rate": 1e-3,
    }.items():
        assert [step[key] for step in steps] == pytest.approx([peak * share for share in shape])


@pytest.fixture(scope="module")
def start(ground) -> dict[str, torch.Tensor]:
    """The weights before any step, within 1e-5: of a stage whose rates move them no further."""
    block = {"stage": 3, "input_learning_rate": 1e-6, "output_learning_rate": 1e-6}
    train(ground, stage=3, eeve=block, output_dir="./start", weight_decay=0.0)
    return load_file(ground / "start/model.safetensors")


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamc"])  # made by transformers, and by Axolotl
def test_a_tiny_rate_holds_its_matrix_while_the_other_moves(ground, start, optimizer):
    train(
        ground,
        eeve={"stages": [{"stage": 3, "output_learning_rate": 1e-9}, {"stage": 2, "learning_rate": 1e-9}]},
        output_dir=f"./tiny_{optimizer}",
        optimizer=optimizer,
        weight_decay=0.0,
        use_tensorboard=True,
    )
    moved = {}
    after = load_file(ground / f"tiny_{optimizer}" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(start[name][:SMALL], after[name][:SMALL])
        moved[name] = (start[name][SMALL:] - after[name][SMALL:]).abs().max().item()
    assert moved["lm_head.weight"] < 1e-5 and moved["model.embed_tokens.weight"] > 1e-3, moved
    runs = EventAccumulator(str(ground / f"tiny_{optimizer}/runs/stage3")).Reload()
    for name, rate in {"learning_rate": 1e-2, "eeve/output_learning_rate": 1e-9}.items():
        assert [each.value for each in runs.Scalars(f"train/{name}")] == pytest.approx([rate] * 2)


def test_a_run_with_rates_that_was_killed_ends_at_the_same_bits(ground):
    keys = {**SLOPE, "save_strategy": "steps", "save_steps": 2, "auto_resume_from_checkpoints": True}
    block = {"stage": 3, **RATES}
    train(ground, stage=3, eeve=block, output_dir="./not_killed", **keys)
    shutil.copytree(ground / "not_killed/checkpoint-2", ground / "killed/checkpoint-2")
    train(ground, stage=3, eeve=block, output_dir="./killed", **keys)
    ours, theirs = (load_file(ground / each / "model.safetensors") for each in ("killed", "not_killed"))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert history(ground / "killed") == history(ground / "not_killed")
    shutil.copytree(ground / "not_killed/checkpoint-2", ground / "changed/checkpoint-2")
    recipe = write_recipe(ground, 3, "./base", output_dir="./changed", **keys)
    done = axolotl(ground, "train", recipe, "--launcher", "python")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "`input_learning_rate` or `output_learning_rate` came or went since" in done.stdout


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
    settings = {"stages": [1, 3], "keep_optimizer": True, "keep_schedule": True, "input_learning_rate": 0.03}
    keys = {"max_steps": 3, "lr_scheduler": "linear", "auto_resume_from_checkpoints": True}
    train(ground, eeve=settings, output_dir="./kept", **keys)
    for key, peak in {"learning_rate": 0.01, "input_learning_rate": 0.03}.items():
        rates = [step[key] for name in ("kept/stage1", "kept") for step in history(ground / name)]
        assert rates == pytest.approx([peak * (6 - step) / 6 for step in range(6)])
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
