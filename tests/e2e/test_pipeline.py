"""`axolotl eeve run`: the whole chain, killed and continued, and what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import SMALL, extended
from tests.e2e.helpers import axolotl, begin, end, lay_ground, write_recipe

pytestmark = pytest.mark.e2e

RESULTS = ["stage3/stage1", "stage3/stage2", "stage3", "stage6", "stage6/merged", "stage7", "stage7/merged"]


def write_pipeline(directory: Path, **keys) -> None:
    pipeline = {
        "output": "./pipeline",
        "runs": ["stage3.yml", "stage6.yml", "stage7.yml"],
        "launcher": "python",
        "evaluate": {"texts": {"Korean": "./text.jsonl"}, "limit": 2, "prompts": ["안녕"]},
        **keys,
    }
    (directory / "pipeline.yml").write_text(yaml.safe_dump(pipeline, allow_unicode=True), encoding="utf-8")


@pytest.fixture(scope="module")
def ground(tmp_path_factory, small_tokenizer_directory, small_tokenizer) -> Path:
    """A directory with a base, an extended tokenizer, a text and a pipeline: stages 1 to 3, 6 and 7.

    The text is packed, as in the recipes, and read by workers; the stages go through it about three times.
    """
    directory = tmp_path_factory.mktemp("pipeline")
    lay_ground(directory, small_tokenizer_directory, small_tokenizer, lines=12)
    often = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "dataloader_num_workers": 2}
    write_recipe(directory, 3, "./base", **often, eeve={"stages": [1, 2, 3], "save_stages": "all"})
    write_recipe(directory, 6, "./stage3", **often)
    write_recipe(directory, 7, "./stage6/merged", **often)
    write_pipeline(directory)
    return directory


def copy(ground: Path, name: str) -> Path:
    """The ground as it was before anything ran."""
    directory = ground.with_name(name)
    directory.mkdir()
    for each in ("base", "tokenizer"):
        shutil.copytree(ground / each, directory / each)
    for each in ground.glob("*.yml"):
        shutil.copy(each, directory)
    shutil.copy(ground / "text.jsonl", directory)
    return directory


def run(directory: Path, *arguments: str) -> str:
    done = axolotl(directory, "eeve", "run", "pipeline.yml", *arguments)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def refusal(directory: Path, *arguments: str, file_limit: int | None = None) -> str:
    done = axolotl(directory, "eeve", "run", "pipeline.yml", *arguments, file_limit=file_limit)
    assert done.returncode == 1, done.stdout[-3000:]
    assert "Traceback" not in done.stdout
    return done.stdout.strip().splitlines()[-1]


def results(directory: Path) -> dict:
    """Every record, which names the weights by their hash, and every loss."""
    found = {}
    for name in RESULTS:
        place = directory / name
        found[name] = json.loads((place / "eeve_stage.json").read_text())
        found[name, "losses"] = json.loads((place / "eeve_history.json").read_text())["steps"]
    return found


@pytest.fixture(scope="module")
def whole(ground) -> Path:
    """The pipeline run without interruption."""
    directory = copy(ground, "whole")
    begun = time.monotonic()
    run(directory)
    (directory / "seconds").write_text(str(time.monotonic() - begun))
    return directory


@pytest.mark.both_versions
def test_a_pipeline_ends_with_every_stage_done_and_a_table(whole):
    log = (whole / "axolotl.log").read_text()
    for stage, unchanged in ((1, "yes"), (2, "yes"), (3, "yes"), (6, "-"), (7, "yes")):
        (line,) = [line for line in log.splitlines() if line.startswith(f"| stage {stage}")]
        assert line.rstrip("| ").rsplit("|")[-1].strip() == unchanged
    assert len(list((whole / "pipeline/evaluation").glob("*.json"))) == 2 + 5


def test_the_steps_of_a_run_are_shown_as_they_are_trained_counted_over_its_stages(whole):
    shown = re.findall(r"step (\d+)/(\d+)  loss \d+\.\d{3}", (whole / "axolotl.log").read_text())
    of_runs = [(str(step), str(steps)) for steps in (3 * 4, 4, 4) for step in range(1, steps + 1)]
    assert shown == of_runs


def test_each_stage_reads_on_where_the_one_before_stopped(whole):
    records = results(whole)
    read = [records[name]["text"] for name in RESULTS if not name.endswith("merged")]
    assert all(before["to"] == after["from"] for before, after in itertools.pairwise(read))
    assert (read[0]["from"]["passes"], read[0]["from"]["sequences"]) == (0, 0) and read[-1]["to"][
        "passes"
    ] >= 2
    assert len({each["corpus"] for each in read}) == 1 and read[0]["from"]["cut"]["packed_to"] == 128
    for name in ("stage6", "stage7"):
        assert records[f"{name}/merged"]["text"] == records[name]["text"]


def test_a_dry_run_says_what_it_would_do_and_does_nothing(ground, whole):
    assert "to do  stages 1, 2, 3: stage3" in run(copy(ground, "dry"), "--dry-run")
    assert not (ground.with_name("dry") / "stage3").exists()
    assert "to do" not in run(whole, "--dry-run")
    again = run(whole, "--dry-run", "--from", "6")
    assert "done   stages 1, 2, 3: stage3" in again and "done   evaluate: stage 3" in again
    for task in ("stage 6: stage6", "merge: stage6/merged", "evaluate: stage 6", "stage 7: stage7"):
        assert f"to do  {task}" in again


def test_run_again_a_finished_pipeline_does_nothing(whole):
    before = results(whole)
    log = run(whole)
    assert log.count("(done before)") == len([line for line in log.splitlines() if line.startswith("[")])
    assert results(whole) == before


# --- killed ---


def half_written(path: str, without: str, having: str = "*") -> Callable[[Path], bool]:
    """Whether some directory at `path` has a file `having` but not yet the file `without`, which comes later."""
    return lambda directory: any(
        any(each.glob(having)) and not (each / without).exists()
        for each in directory.glob(path)
        if each.is_dir()
    )


MOMENTS = {
    "while a dataset is being prepared": half_written("prepared/*/*", without="state.json"),
    "inside a checkpoint of stage 2": half_written(
        "stage3/checkpoints/stage2/checkpoint-*", without="eeve_whole"
    ),
    "inside a boundary": half_written("stage3/.stage1.unfinished", without="eeve_stage.json"),
    "between weights and record": lambda directory: (
        (directory / "stage3/model.safetensors").exists()
        and not (directory / "stage3/eeve_stage.json").exists()
    ),
    "inside an adapter's checkpoint": half_written(
        "stage6/checkpoint-*", having="adapter_model.safetensors", without="trainer_state.json"
    ),
    "inside a merge": half_written("stage6/merged", without="model.safetensors"),
    "between a merge and its record": lambda directory: (
        (directory / "stage7/merged/model.safetensors").exists()
        and not (directory / "stage7/merged/eeve_stage.json").exists()
    ),
}


def killed(directory: Path, until: Callable[[], bool]) -> bool:
    """Start the pipeline and kill it, with all that it started, as soon as `until` holds; False if it ended first."""
    child = begin(directory, "eeve", "run", "pipeline.yml")
    while not until():
        if not os.path.exists(f"/proc/{child}"):
            break
        time.sleep(0.0005)
    else:
        os.killpg(child, signal.SIGKILL)
    return end() == -signal.SIGKILL


def test_killed_at_many_moments_it_ends_with_the_same_weights_and_records(ground, whole):
    source = random.Random(20)
    uninterrupted = float((whole / "seconds").read_text())  # on a slow machine moments lie further apart
    kills, hit, copies = 0, set(), 0
    while kills < 10 or len(hit) < 5:
        # A quick machine is done before it was killed often enough: then once more from the beginning.
        copies += 1
        assert copies <= 4 and kills < 30, (kills, hit)
        directory = copy(ground, f"killed{copies}")
        ended = False
        while not ended and kills < 30 and (kills < 10 or len(hit) < 5):
            # Each time later than the last, so that a machine that has become slow gets further all the same.
            deadline = time.monotonic() + uninterrupted * source.uniform(0.03, 0.3) * 1.15**kills

            def now(directory=directory, deadline=deadline) -> bool:
                for name, holds in MOMENTS.items():
                    if name not in hit and holds(directory):
                        hit.add(name)
                        return True
                return time.monotonic() > deadline

            ended = not killed(directory, now)
            kills += not ended
        run(directory)
        assert results(directory) == results(whole)


@pytest.mark.both_versions
def test_killed_in_a_training_and_before_a_merge_is_whole_it_ends_with_the_same_weights_and_records(
    ground, whole
):
    """Two moments that last long enough to be met on any machine."""
    directory = copy(ground, "killed_twice")

    def has_a_checkpoint_of_stage_2() -> bool:
        return any(directory.glob("stage3/checkpoints/stage2/checkpoint-*/eeve_whole"))

    def merges() -> bool:
        return (directory / "stage6/eeve_stage.json").exists()

    for moment in (has_a_checkpoint_of_stage_2, merges):
        assert killed(directory, moment), f"the chain ended before {moment.__name__}"
    assert not (directory / "stage6/merged/eeve_stage.json").exists()
    run(directory)
    assert results(directory) == results(whole)


# --- refused ---


def test_a_changed_setting_is_named_and_from_trains_again(ground, whole):
    directory = ground.with_name("changed")
    shutil.copytree(whole, directory)
    recipe = (directory / "stage7.yml").read_text()
    (directory / "stage7.yml").write_text(recipe.replace("learning_rate: 0.01", "learning_rate: 0.002"))
    for message in (refusal(directory), refusal(directory, "--dry-run")):
        assert "stage7.yml is done, but since then learning_rate was 0.01 and is 0.002" in message
        assert "--from 7" in message
    run(directory, "--from", "7")
    before, after = results(whole), results(directory)
    assert before["stage6/merged"] == after["stage6/merged"] and before["stage7"] != after["stage7"]


def test_models_are_evaluated_again_when_what_to_evaluate_has_changed(ground, whole):
    directory = ground.with_name("reread")
    shutil.copytree(whole, directory)
    write_pipeline(directory, evaluate={"texts": {"Korean": "./text.jsonl"}, "limit": 1, "prompts": ["안녕"]})
    plan = run(directory, "--dry-run")
    assert plan.count("to do  evaluate") == 2 + 5 and plan.count("to do") == 2 + 5


def test_a_tokenizer_built_anew_is_noticed(ground, whole, small_tokenizer):
    directory = ground.with_name("rebuilt")
    shutil.copytree(whole, directory)
    extended(small_tokenizer, ["안녕", "▁학교", "▁지금", "하다"]).save_pretrained(directory / "tokenizer")
    assert "since then the tokenizer was built anew" in refusal(directory)


def test_weights_that_are_not_those_of_the_record_are_not_taken_for_done(ground, whole):
    directory = ground.with_name("touched")
    shutil.copytree(whole, directory)
    weights = directory / "stage7/merged/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert "to do  merge: stage7/merged" in run(directory, "--dry-run")


@pytest.mark.parametrize("keys, message", [
    ({"runs": ["stage3.yml", "stage7.yml"]}, "stage7.yml starts from ./stage6/merged, but stage3.yml before it makes"),
    ({"runs": ["stage3.yml", "stage4.yml"]}, "stage4.yml does not exist"),
    ({"runs": ["pipeline.yml"]}, "pipeline.yml is a pipeline's YAML, which `axolotl eeve run` reads"),
    ({"evaluate": {"texts": {"Korean": "./missing.jsonl"}}}, "the held-out text Korean, ./missing.jsonl, does not exist"),
    ({"launchr": "python"}, "launchr: there is no such key"),
    ({"tokenizer": "tokenizer.yml"}, "tokenizer is built, but since then in tokenizer.yml new_tokens was 4 and is 5"),
    ({"output": "./other"}, "output other belongs to another pipeline"),
])  # fmt: skip
def test_a_pipeline_that_cannot_run_is_refused_in_one_sentence(ground, tmp_path, keys, message):
    directory = copy(ground, f"refused-{tmp_path.name}")
    write_pipeline(directory, **keys)
    (directory / "tokenizer.yml").write_text(
        "{base: base, output: tokenizer, corpus: [{path: text.jsonl}], new_tokens: 5}"
    )
    built = {"base_vocab_size": SMALL, "settings": {"base": "base", "new_tokens": 4}}
    (directory / "tokenizer/eeve_tokenizer.json").write_text(json.dumps(built))
    (directory / "other").mkdir()
    theirs = {"runs": [{"output_dir": "./somebody-elses"}], "tokenizer": "theirs", "base_model": "theirs"}
    (directory / "other/eeve_pipeline.json").write_text(json.dumps(theirs))
    assert message in refusal(directory)
    assert not (directory / "stage3").exists()


def test_an_unknown_stage_name_is_told(ground):
    assert "there is no such stage in this pipeline; its stages are 1, 2, 3, 6, 7" in refusal(
        copy(ground, "unknown"), "--from", "5"
    )


def test_a_failing_stage_stops_the_chain_with_its_own_words(ground):
    directory = copy(ground, "failing")
    (directory / "text.jsonl").write_text('{"text": "x"}\n')
    write_recipe(directory, 3, "./base", eeve={"stages": [1, 2, 3]}, unfrozen_parameters=["lm_head"])
    message = refusal(directory)
    assert "axolotl train stage3.yml" in message and "`unfrozen_parameters` cannot be used" in message


def test_two_chains_do_not_run_in_one_place(ground):
    import fcntl

    directory = copy(ground, "twice")
    (directory / "pipeline").mkdir()
    with (directory / "pipeline/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another `axolotl eeve run` is at work" in refusal(directory)


def test_no_room_for_the_weights_is_told_before_anything_is_written(ground, whole, monkeypatch):
    from eeve_axolotl.errors import EEVEError
    from eeve_axolotl.pipeline.chain import Chain
    from eeve_axolotl.pipeline.settings import PipelineSettings
    from eeve_axolotl.settings import read_yaml

    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 9, 1))
    unmerged = ground.with_name("unmerged")
    shutil.copytree(whole, unmerged)
    shutil.rmtree(unmerged / "stage7/merged")
    for directory, task, made in (
        (copy(ground, "no_room"), "stages 1, 2, 3: stage3", "stage3"),
        (unmerged, "merge: stage7/merged", "stage7/merged"),
    ):
        monkeypatch.chdir(directory)
        chain = Chain("pipeline.yml", read_yaml("pipeline.yml", PipelineSettings))
        chain.settings.evaluate = None
        with pytest.raises(EEVEError, match=f"{task}: writing its weights needs .* make room, or choose"):
            chain.run()
        assert not (directory / made).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_a_full_disk_while_saving_stops_the_chain_and_leaves_nothing_taken_for_done(ground, whole):
    directory = copy(ground, "full")
    limit = 55_000  # bytes: the prepared text and the log fit, the weights do not
    log = refusal(directory, file_limit=limit)
    assert "stage3.yml" in log and "File too large" in log
    run(directory)
    assert results(directory) == results(whole)
