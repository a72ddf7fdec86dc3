"""What a person types wrong is told at once and in full, and what is asked for is alone on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from eeve_axolotl import args
from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.plainly import stdout_kept
from eeve_axolotl.planner import gpus
from eeve_axolotl.settings import read_mapping
from eeve_axolotl.version import __version__
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def invoke(*arguments: str):
    return CliRunner().invoke(eeve, [*arguments])


@pytest.mark.parametrize("text", ["held_out.jsonl", "=held_out.jsonl", "Korean=", "", " =x", "./a/b.jsonl"])
def test_a_text_without_its_name_or_file_is_a_mistake_of_form(text, monkeypatch):
    """Not a text to be read: an empty file name is a directory with everything in it."""
    monkeypatch.setitem(sys.modules, "eeve_axolotl.evaluation.inspection", None)  # nothing is imported for it
    done = invoke("evaluate", "model", "--text", text)
    assert done.exit_code == 2 and "NAME=FILE" in done.output, done.output


def test_two_texts_of_one_name_are_a_mistake_of_form():
    done = invoke("evaluate", "model", "--text", "Korean=a.jsonl", "--text", "Korean=b.jsonl")
    assert done.exit_code == 2 and "two texts are called Korean" in done.output


@pytest.mark.parametrize(
    "command", [["plan", "stage1.yml"], ["init", "mine", "--base", "b", "--corpus", "c", "--language", "ko"]]
)
def test_an_unknown_gpu_is_told_before_anything_heavy_is_imported(command, monkeypatch):
    for heavy in ("eeve_axolotl.planner.estimate", "eeve_axolotl.project.make"):
        monkeypatch.setitem(sys.modules, heavy, None)
    done = invoke(*command, "--gpu", "h1000")
    assert done.exit_code == 1 and "h1000 is not known; give one of" in done.output


@pytest.mark.parametrize("name, memory, teraflops", [
    ("RTX 4090", 24, 165.2), ("rtx-3090", 24, 71), ("A10", 24, 125), ("l4", 24, 121), ("B200", 180, 2250),
    ("MI300X", 192, 1307.4), ("h100-80gb", 80, 989.4), ("l40s", 48, 362),
])  # fmt: skip
def test_a_gpu_may_be_named_as_people_do(name, memory, teraflops):
    found = gpus.find(name)
    assert (found.memory, found.flops) == (memory * 10**9, teraflops * 1e12)


def test_a_gpu_that_comes_with_several_memories_is_asked_for_by_one():
    with pytest.raises(EEVEError, match="give one of a100-40gb, a100-80gb$"):
        gpus.find("a100")


@pytest.mark.parametrize("name, kind", [
    ("tokenizer.yml", "a tokenizer's YAML, which `axolotl eeve tokenizer` reads"),
    ("corpus.yml", "a corpus's YAML, which `axolotl eeve corpus` reads"),
    ("pipeline.yml", "a pipeline's YAML, which `axolotl eeve run` reads"),
    ("eval_local.yml", "an evaluation's YAML, which `lm_eval run --config` reads"),
])  # fmt: skip
def test_a_yaml_of_another_kind_is_called_what_it_is(name, kind):
    for path in (EXAMPLES / name, EXAMPLES / "phi-2" / name):
        with pytest.raises(EEVEError, match=kind):
            args.read_block(read_mapping(path), str(path))


@pytest.mark.parametrize("name", ["tokenizer.yml", "corpus.yml"])
def test_the_plan_of_a_yaml_of_another_kind_says_what_it_is(name):
    done = invoke("plan", str(EXAMPLES / name), "--gpu", "h100-80gb")
    assert (
        done.exit_code == 1 and f"{name} is a " in done.output and "give the YAML of a stage" in done.output
    )


def test_a_config_of_axolotl_without_our_block_is_told_what_to_add(tmp_path):
    path = tmp_path / "sft.yml"
    path.write_text(yaml.safe_dump({"base_model": "x", "datasets": []}))
    with pytest.raises(EEVEError, match="has no `eeve:` block; add"):
        args.read_block(read_mapping(path), str(path))


def test_it_says_its_version():
    assert invoke("--version").output.strip() == f"eeve-axolotl, version {__version__}"


@pytest.mark.slow
def test_the_command_for_pipes_prints_json_and_nothing_else(tmp_path):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["axolotl-eeve"].partition(":")
    code = f"import sys; from {module} import {function}; sys.argv = ['axolotl-eeve', 'schema', 'pipeline']; {function}()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "corpus" in json.loads(done.stdout)["properties"]


def test_the_plans_table_is_alone_on_stdout(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = invoke("plan", "examples/stage2.yml", "--gpu", "h100-80gb", "--new-tokens", "8960")
    assert done.exit_code == 0 and done.stdout.startswith("stage")


def test_what_a_library_prints_while_a_command_works_is_not_its_output(capsys):
    with stdout_kept():
        print("warned")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "warned\n")


@pytest.mark.parametrize("value, told", [("1", True), ("0", False), ("", False)])
def test_what_the_hub_may_have_says_that_it_is_not_asked(value, told, monkeypatch, tmp_path):
    """Of a base, a model and a dataset."""
    from eeve_axolotl.evaluation.inspection import evaluate
    from eeve_axolotl.evaluation.settings import EvaluationSettings
    from eeve_axolotl.sources import Source
    from eeve_axolotl.tokenizer import base

    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.chdir(tmp_path)
    Path("held.jsonl").write_text('{"text": "안녕"}')
    asked = (
        lambda: base.load("./nowhere"),
        lambda: evaluate("./nowhere", EvaluationSettings(texts={"Korean": "held.jsonl"})),
        lambda: Source(path="./nowhere", split="train").shards(),
    )
    for ask in asked:
        with pytest.raises(EEVEError) as failed:
            ask()
        assert ("HF_HUB_OFFLINE is set" in str(failed.value)) is told
