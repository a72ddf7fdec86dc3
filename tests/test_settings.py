"""Keys of a YAML that are set on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.pipeline import launch
from eeve_axolotl.settings import changed
from tests.faults.grounds import write_ground


@pytest.mark.parametrize("change, found", [
    ("a=2", {"a": 2, "b": {"c": [1, {"d": 1}]}}),
    ("b.c=[]", {"a": 1, "b": {"c": []}}),
    ("b.c.1.d=x y", {"a": 1, "b": {"c": [1, {"d": "x y"}]}}),
    ("b.c.0=null", {"a": 1, "b": {"c": [None, {"d": 1}]}}),
    ("new.block.key=true", {"a": 1, "b": {"c": [1, {"d": 1}]}, "new": {"block": {"key": True}}}),
    ("a=b=c", {"a": "b=c", "b": {"c": [1, {"d": 1}]}}),
])  # fmt: skip
def test_a_key_leads_through_blocks_and_lists(change, found):
    given = {"a": 1, "b": {"c": [1, {"d": 1}]}}
    before = json.dumps(given)
    assert changed(given, [change]) == found
    assert json.dumps(given) == before


@pytest.mark.parametrize("change, told", [
    ("a", "KEY=VALUE"), ("=1", "KEY=VALUE"), ("a..b=1", "KEY=VALUE"), ("a.b=1", "there is no a.b to set"),
    ("b.c.7=1", "there is no b.c.7"), ("b.c.x=1", "there is no b.c.x"), ("a=[", "no value for YAML"),
])  # fmt: skip
def test_what_leads_nowhere_is_told(change, told):
    with pytest.raises(EEVEError, match=told):
        changed({"a": 1, "b": {"c": [1]}}, [change])


def invoke(*arguments: str):
    return CliRunner().invoke(eeve, [*arguments])


@pytest.fixture
def ground(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ground(tmp_path)
    Path("tokenizer.yml").write_text(
        yaml.safe_dump({"base": "base", "output": "words", "corpus": [{"path": "text.jsonl"}]})
    )
    mix = {"korean": {"share": 1.0, "sources": [{"path": "text.jsonl"}]}}
    corpus = {"tokenizer": "base", "output": "corpus", "mix": mix, "budget": {"share": 1.0}}
    Path("corpus.yml").write_text(yaml.safe_dump(corpus))
    pipeline = {"output": "pipeline", "runs": ["stage3.yml"], "evaluate": {"texts": {"Korean": "text.jsonl"}}}
    Path("pipeline.yml").write_text(yaml.safe_dump(pipeline))


@pytest.mark.parametrize("command", [
    ["tokenizer", "tokenizer.yml"], ["corpus", "corpus.yml"], ["run", "pipeline.yml", "--dry-run"],
    ["evaluate", "base", "--config", "pipeline.yml"],
])  # fmt: skip
def test_every_yaml_of_ours_takes_them_and_knows_its_keys(ground, command):
    done = invoke(*command, "--set", "nonsense.key=1")
    assert done.exit_code == 1 and "nonsense: there is no such key" in done.output, done.output


def test_a_stage_takes_them_where_it_is_checked_and_planned(ground):
    told = "stage: Input should be a valid integer"
    assert told in invoke("check", "stage3.yml", "--set", "eeve.stage=nine").output
    assert told in invoke("plan", "stage3.yml", "--gpu", "l4", "--set", "eeve.stage=nine").output


def test_the_commands_of_a_chain_are_told_what_was_set(ground, monkeypatch):
    commands = []
    monkeypatch.setattr(launch, "launch", lambda arguments, log, on_step: commands.append(arguments) or 1)
    invoke("run", "pipeline.yml", "--set", "evaluate.dtype=bfloat16", "--set", "evaluate.limit=3")
    (first,) = commands
    assert first[:2] == ["eeve", "evaluate"] and first[-4:] == [
        "--set",
        "evaluate.dtype=bfloat16",
        "--set",
        "evaluate.limit=3",
    ]


def test_without_a_yaml_there_is_nothing_to_set():
    done = invoke("evaluate", "base", "--text", "Korean=a.jsonl", "--set", "evaluate.limit=1")
    assert done.exit_code == 2 and "--config" in done.output
