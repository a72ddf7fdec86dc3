"""A chain that gives new output rows their start: killed it goes on, stage 1 trains from it, and all names the real base."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.preview import look_at_ours
from tests.conftest import SMALL
from tests.e2e.helpers import axolotl, begin, end, run, write_recipe
from tests.test_calibration import ground  # noqa: F401  a fixture

pytestmark = pytest.mark.e2e

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CHAIN = ("eeve", "run", "pipeline.yml")
LICENSED = "---\nlicense: cc-by-4.0\n---\n# A small base\n"


@pytest.fixture
def here(ground, tmp_path) -> Path:  # noqa: F811
    """A directory in which nothing ran yet."""
    return lay(ground, tmp_path / "chain")


def lay(source: Path, directory: Path, stage: int = 1, **start) -> Path:
    directory.mkdir()
    for name in ("base", "tokenizer"):
        shutil.copytree(source / name, directory / name)
    for name in ("text.jsonl", "held_out.jsonl"):
        shutil.copy(source / name, directory)
    (directory / "base/README.md").write_text(LICENSED)
    recipe = write_recipe(directory, stage, "./started")
    pipeline = {
        "output": "./pipeline",
        "start": {"base": "./base", "output": "./started", "tokens": 2_000, **start},
        "runs": [recipe],
        "launcher": "python",
        "evaluate": {"texts": {"Korean": "./held_out.jsonl"}, "limit": 20, "prompts": ["안녕"]},
    }
    (directory / "pipeline.yml").write_text(yaml.safe_dump(pipeline, allow_unicode=True), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def whole(ground, tmp_path_factory) -> Path:  # noqa: F811
    directory = lay(ground, tmp_path_factory.mktemp("whole") / "chain")
    assert "to do  start: started" in run(directory, *CHAIN, "--dry-run")
    assert not (directory / "started").exists()
    run(directory, *CHAIN)
    return directory


def test_stage_1_trains_from_the_started_model_and_is_proven(whole):
    before, after = (load_file(whole / each / "model.safetensors") for each in ("started", "stage1"))
    assert torch.equal(before[HEAD], after[HEAD]) and torch.equal(before[TABLE][:SMALL], after[TABLE][:SMALL])
    assert not torch.equal(before[TABLE][SMALL:], after[TABLE][SMALL:])
    record = json.loads((whole / "stage1/eeve_stage.json").read_text())
    assert record["initialised"] is None and record["base_vocab_size"] == SMALL
    (line,) = [
        each for each in (whole / "axolotl.log").read_text().splitlines() if each.startswith("| stage 1")
    ]
    assert line.rstrip("| ").rsplit("|")[-1].strip() == "yes"


def test_figures_and_card_are_of_the_real_base_and_the_rows_as_they_started(whole):
    started = json.loads((whole / "started/eeve_start.json").read_text())
    assert started["after"] < started["before"]
    figures = [
        json.loads((whole / f"pipeline/evaluation/{name}.json").read_text()) for name in ("base", "extended")
    ]
    assert [each["model"] for each in figures] == ["./base", "./started"]
    assert figures[0]["texts"]["Korean"]["new_tokens"] is None
    assert figures[1]["texts"]["Korean"]["new_tokens"]["targets"]
    card = (whole / "stage1/README.md").read_text()
    assert (
        "base with its vocabulary extended" in card and "license: cc-by-4.0" in card and "started" not in card
    )


def test_run_again_it_does_nothing_and_from_stage_1_on_it_keeps_the_start(ground, whole, tmp_path):  # noqa: F811
    directory = tmp_path / "again"
    shutil.copytree(whole, directory)
    before = (directory / "started/model.safetensors").stat().st_mtime_ns
    printed = run(directory, *CHAIN)
    assert printed.count("(done before)") == 5
    assert "start: started (done before)" in run(directory, *CHAIN, "--from", "1")
    assert (directory / "started/model.safetensors").stat().st_mtime_ns == before


def test_killed_while_it_writes_it_is_not_done_and_ends_with_the_same_model(here, whole):
    child = begin(here, *CHAIN)
    unfinished, whole_one = here / ".started.unfinished", here / "started"
    while not (unfinished.exists() or whole_one.exists()):
        assert os.path.exists(f"/proc/{child}"), (here / "axolotl.log").read_text()[-2000:]
        time.sleep(0.0005)
    os.killpg(child, signal.SIGKILL)
    assert end() == -signal.SIGKILL
    if not (whole_one / "eeve_start.json").exists():  # else it was quicker than the signal
        assert "to do  start: started" in run(here, *CHAIN, "--dry-run")
    run(here, *CHAIN)
    for name in ("started", "stage1"):
        assert (here / name / "model.safetensors").read_bytes() == (
            whole / name / "model.safetensors"
        ).read_bytes()
    assert not unfinished.exists()


def test_a_model_without_the_record_is_a_users_own_and_stays(here):
    shutil.copytree(here / "base", here / "started")
    before = {each.name: each.read_bytes() for each in (here / "started").iterdir()}
    done = axolotl(here, *CHAIN)
    assert done.returncode == 1 and "holds something that this command did not write" in done.stdout
    assert {each.name: each.read_bytes() for each in (here / "started").iterdir()} == before


def test_another_base_model_of_the_first_run_is_refused_before_any_work(here):
    write_recipe(here, 1, "./base")
    done = axolotl(here, *CHAIN)
    assert done.returncode == 1 and "set `base_model: ./started` in stage1.yml" in done.stdout
    assert not (here / "pipeline").exists()


def test_stage_6_alone_trains_a_tied_base_that_got_a_second_matrix(ground, tmp_path):  # noqa: F811
    directory = lay(ground, tmp_path / "short", stage=6, untie=True)
    model = AutoModelForCausalLM.from_pretrained(directory / "base")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(directory / "base")
    before = load_file(directory / "base/model.safetensors")
    assert HEAD not in before
    run(directory, *CHAIN)
    started, merged = (
        load_file(directory / each / "model.safetensors") for each in ("started", "stage6/merged")
    )
    for name in (TABLE, HEAD):
        assert torch.equal(started[name][:SMALL], before[TABLE])
        assert not torch.equal(merged[name][:SMALL], before[TABLE])
        assert not torch.equal(merged[name][SMALL:], started[name][SMALL:])
    assert not torch.equal(merged[TABLE], merged[HEAD])
    assert json.loads((directory / "stage6/merged/config.json").read_text())["tie_word_embeddings"] is False
    assert run(directory, *CHAIN).count("(done before)") == 6


def test_the_check_of_the_whole_pipeline_finds_nothing_before_and_after(here, whole, monkeypatch):
    for directory in (here, whole):
        monkeypatch.chdir(directory)
        assert look_at_ours("pipeline.yml", PipelineSettings).problems == []
