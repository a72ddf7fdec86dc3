"""Which commands a chain runs, and with which arguments."""

from __future__ import annotations

import pytest

from eeve_axolotl.pipeline.settings import PipelineSettings
from eeve_axolotl.pipeline.tasks import Tasks
from tests.faults.grounds import write_ground


@pytest.mark.parametrize("init, told", [
    ({}, []),
    ({"output": "first_character"}, []),  # the default
    ({"output": "mean"}, ["--output-rows", "mean"]),
])  # fmt: skip
def test_the_extended_base_is_evaluated_with_the_start_that_the_first_stage_gives_it(
    init, told, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_ground(tmp_path)
    recipe = tmp_path / "stage3.yml"
    recipe.write_text(recipe.read_text().replace("stage: 3", f"stage: 3\n  init: {init}"))
    settings = PipelineSettings(
        output="pipeline", runs=["stage3.yml"], evaluate={"texts": {"Korean": "text.jsonl"}}
    )
    tasks = {task.what: task.arguments for task in Tasks("pipeline.yml", settings).in_order()}
    assert [each for each in tasks["evaluate: extended"] if each in ("--output-rows", "mean")] == told
    assert "--output-rows" not in tasks["evaluate: base"] + tasks["evaluate: stage 3"]
