"""`axolotl train` with frozen layers in FP8, emulated on a CPU: what is saved, at the end, on the way, and after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL
from tests.e2e.helpers import lay_ground, run, write_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.both_versions]

INPUTS, OUTPUTS = "model.embed_tokens.weight", "lm_head.weight"
STEPS, SAVED = 4, 2
KEYS = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVED}


def train(directory: Path, base: str, stage: int, output: str, block: dict, **keys) -> str:
    recipe = write_recipe(directory, stage, base, output_dir=f"./{output}", eeve=block, **{**KEYS, **keys})
    return run(directory, "train", recipe, "--launcher", "python")


@pytest.fixture(scope="module")
def ground(tmp_path_factory, small_tokenizer_directory, small_tokenizer) -> Path:
    """A directory in which stages 1 and 3 have run in one run (`both`), and stage 3 once more by itself."""
    directory = tmp_path_factory.mktemp("frozen_precision")
    lay_ground(directory, small_tokenizer_directory, small_tokenizer, hidden_size=64)
    fp8 = {"frozen_precision": "fp8"}
    both = {"stages": [1, 3], "save_stages": "all", **fp8}
    (directory / "log.txt").write_text(train(directory, "./base", 1, "both", both), encoding="utf-8")
    train(directory, "./both/stage1", 3, "stage3", {"stage": 3, **fp8})
    return directory


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "model.safetensors")


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    assert one.dtype == other.dtype == torch.float32
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


@pytest.mark.parametrize(
    "place",
    [
        "both",
        "both/stage1",
        f"both/checkpoints/stage1/checkpoint-{SAVED}",
        "stage3",
        f"stage3/checkpoint-{SAVED}",
    ],
)
def test_what_is_saved_are_the_bases_own_bits(ground, place):
    base, saved = weights(ground / "base"), weights(ground / place)
    assert saved.keys() == base.keys()
    for name, weight in base.items():
        if name in (INPUTS, OUTPUTS):
            assert same_bits(weight, saved[name][:SMALL])
        else:
            assert same_bits(weight, saved[name]), name
    assert saved[INPUTS].shape[0] > SMALL


def test_the_record_says_so_and_proves_the_bases_own_bits(ground):
    for place in ("stage3", "both", "both/stage1"):
        record = json.loads((ground / place / "eeve_stage.json").read_text())
        held = record["frozen_precision"]
        assert (held["precision"], held["matrices"], held["emulated"]) == ("fp8", 14, True)
        assert record["moved"] == {} and record["fingerprint_before"] == record["fingerprint_after"]
    first, second = (
        json.loads((ground / each / "eeve_stage.json").read_text())["fingerprint_after"]["internal_layers"]
        for each in ("both/stage1", "both")
    )
    assert first == second
    log = (ground / "log.txt").read_text(encoding="utf-8")
    assert log.count("frozen_precision: fp8 for 14 matrices") == 1  # quantised once, for both stages
    assert "FP8 is emulated on this CPU" in log


def test_a_stage_in_a_run_of_several_gives_the_weights_of_its_own_run(ground):
    one, other = weights(ground / "both"), weights(ground / "stage3")
    assert all(same_bits(weight, other[name]) for name, weight in one.items())


def test_a_killed_stage_goes_on_from_its_checkpoint_to_the_same_weights(ground):
    shutil.copytree(ground / "stage3" / f"checkpoint-{SAVED}", ground / "resumed" / f"checkpoint-{SAVED}")
    block = {"stage": 3, "frozen_precision": "fp8"}
    train(ground, "./both/stage1", 3, "resumed", block, auto_resume_from_checkpoints=True)
    assert json.loads((ground / "resumed" / "eeve_history.json").read_text())["steps"][-1]["step"] == STEPS
    one, other = weights(ground / "resumed"), weights(ground / "stage3")
    assert all(same_bits(weight, other[name]) for name, weight in one.items())
    start = weights(ground / f"stage3/checkpoint-{SAVED}")
    assert not same_bits(start[INPUTS], one[INPUTS])
