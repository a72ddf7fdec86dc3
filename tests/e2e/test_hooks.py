"""When Axolotl calls the plugin's hooks, and what holds then: what tests/test_contract.py cannot see without a run."""

import json
import shutil
from pathlib import Path

import pytest

from eeve_axolotl import axolotl_versions
from tests.conftest import extended, tiny_llama
from tests.e2e.helpers import axolotl, write_recipe
from tests.e2e.recorder import CALLS

pytestmark = [pytest.mark.e2e, pytest.mark.both_versions]

BASE_ROWS = 32_000  # in the checkpoint
ROWS = BASE_ROWS + 2  # in the tokenizer: two new tokens
MODEL = ["pre_model_load", "post_model_build", "pre_lora_load", "post_model_load"]
TRAINING = ["register", *MODEL, "post_trainer_create", "post_train_unload"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, base_tokenizer_directory, base_tokenizer) -> dict[str, list[dict]]:
    """The hooks that `axolotl train` and then `axolotl merge-lora` called, for a stage with adapters."""
    directory = tmp_path_factory.mktemp("hooks")
    shutil.copytree(base_tokenizer_directory, directory / "base")
    tiny_llama(BASE_ROWS, hidden_size=16).save_pretrained(directory / "base")
    extended(base_tokenizer, ["안녕"]).save_pretrained(directory / "tokenizer")
    (directory / "text.jsonl").write_text(
        '{"text": "안녕, The school is quiet now. "}\n' * 40, encoding="utf-8"
    )
    plugins = ["eeve_axolotl.EEVEPlugin", "tests.e2e.recorder.Recorder"]
    recipe = write_recipe(directory, 6, "./base", plugins=plugins)
    return {
        "train": calls(directory, "train", recipe, "--launcher", "python"),
        "merge-lora": calls(directory, "merge-lora", recipe),
    }


def calls(directory: Path, *command: str) -> list[dict]:
    done = axolotl(directory, *command)
    last = (done.stdout.strip() or "it said nothing").splitlines()[-1]
    assert done.returncode == 0, f"`axolotl {command[0]}` does not run: {last}\n{done.stdout[-3000:]}"
    written = directory / CALLS
    found = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    written.unlink()
    return found


def one(calls: list[dict], hook: str) -> dict:
    """What held when `hook` was called, the last time."""
    found = [each for each in calls if each["hook"] == hook]
    assert found, f"`{hook}` is not called"
    return found[-1]


def test_a_training_calls_the_hooks_once_each_and_in_the_order_that_the_plugin_rests_on(ran):
    called = [each["hook"] for each in ran["train"] if each["hook"] in TRAINING]
    assert called == TRAINING, (
        f"a training calls {', '.join(called)}; the plugin rests on {', '.join(TRAINING)}"
    )


def test_the_model_is_built_with_the_rows_of_the_checkpoint(ran):
    rows = one(ran["train"], "post_model_build")["rows"]
    assert rows == BASE_ROWS, (
        f"at post_model_build the embeddings have {rows} rows, not the checkpoint's {BASE_ROWS}"
    )


def test_before_adapters_come_the_embeddings_have_the_rows_of_the_tokenizer(ran):
    held = one(ran["train"], "pre_lora_load")
    assert held["rows"] == ROWS, (
        f"at pre_lora_load the embeddings have {held['rows']} rows, not the tokenizer's {ROWS}"
    )
    assert not held["adapters"], "at pre_lora_load there are adapters already"


def test_a_loaded_model_has_its_adapters(ran):
    assert one(ran["train"], "post_model_load")["adapters"], "at post_model_load there are no adapters yet"


def test_the_trainer_is_ours_and_has_not_begun_when_it_is_handed_over(ran):
    held = one(ran["train"], "post_trainer_create")
    assert (held["trainer"], held["step"]) == ("EEVETrainer", 0), f"at post_trainer_create there is {held}"


def test_the_weights_are_saved_before_the_record_is_written(ran):
    """The recorder is asked after the plugin, so the record is there too."""
    files = one(ran["train"], "post_train_unload")["files"]
    for name in ("adapter_model.safetensors", "eeve_stage.json"):
        assert name in files, f"at post_train_unload there is no {name}, only {', '.join(files)}"


def test_a_merge_loads_the_model_as_a_training_does(ran):
    called = [each["hook"] for each in ran["merge-lora"] if each["hook"] in MODEL]
    assert called == MODEL, f"a merge calls {', '.join(called)}; the plugin rests on {', '.join(MODEL)}"
    rows = one(ran["merge-lora"], "pre_lora_load")["rows"]
    assert rows == ROWS, f"a merge adds adapters to {rows} rows, not the tokenizer's {ROWS}"


def test_a_merged_model_is_whole_when_its_hook_is_called(ran):
    hook = "post_lora_merge"
    if axolotl_versions.release() < axolotl_versions.HOOKS_SINCE[hook]:
        assert all(each["hook"] != hook for each in ran["merge-lora"])
        return
    files = one(ran["merge-lora"], hook)["files"]
    for name in ("model.safetensors", "tokenizer.json", "eeve_stage.json"):
        assert name in files, f"at {hook} there is no {name}, only {', '.join(files)}"
    assert ran["merge-lora"][-1]["hook"] == hook, f"after {hook} comes {ran['merge-lora'][-1]['hook']}"
