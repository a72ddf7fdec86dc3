"""What a person does by mistake is told in one line, and Ctrl-C ends a command in one line too."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.files import writing
from tests.faults.grounds import hashes, write_ground


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_ground(tmp_path)
    (tmp_path / "directory.yml").mkdir()
    (tmp_path / "deep.yml").write_text("[" * 1000)
    (tmp_path / "null.yml").write_bytes(b"output: a\0b\n")
    (tmp_path / "pipeline.yml").write_text(yaml.safe_dump({"output": "pipeline", "runs": ["stage3.yml"]}))
    return tmp_path


def told(*arguments: str) -> str:
    """The one line of a command that fails."""
    ended = CliRunner().invoke(eeve, arguments)
    assert ended.exit_code == 1 and isinstance(ended.exception, SystemExit), ended.exception
    (line,) = [each for each in ended.output.splitlines() if each.startswith(("Error", "Missing"))]
    return line


@pytest.mark.parametrize("command", ["run", "tokenizer", "check", "plan"])
@pytest.mark.parametrize("file", ["directory.yml", "deep.yml", "null.yml", "stage3.yml/below.yml"])
def test_a_file_that_is_no_yaml_is_told(here, command, file):
    more = ["--gpu", "h100-80gb"] if command == "plan" else []
    assert file in told(command, file, *more)


@pytest.mark.parametrize("key", ["output_dir", "base_model", "tokenizer_config", "dataset_prepared_path"])
def test_a_place_that_is_a_number_is_told(here, key):
    cfg = yaml.safe_load((here / "stage3.yml").read_text()) | {key: 7}
    (here / "stage3.yml").write_text(yaml.safe_dump(cfg))
    assert f"`{key}` is 7" in told("run", "pipeline.yml", "--dry-run")


@pytest.mark.parametrize("output", ["", ".", "text.jsonl", "text.jsonl/below"])
def test_an_output_that_cannot_be_one_is_told_before_the_work(here, output):
    before = hashes(here)
    (here / "pipeline.yml").write_text(yaml.safe_dump({"output": output, "runs": ["stage3.yml"]}))
    assert "output: " in told("run", "pipeline.yml")
    before["pipeline.yml"] = hashes(here)["pipeline.yml"]
    assert hashes(here) == before


def test_recipes_into_a_forbidden_place_are_told(here):
    assert "text.jsonl" in told("recipes", "text.jsonl/below")
    assert "/proc" in told("recipes", "/proc/recipes")


def test_a_broken_yaml_beside_a_recipe_is_passed_over(here):
    from eeve_axolotl.planner.recipes import beside

    for content in ("a: [", "[1]", "", "{{ values }}: - x"):
        (here / "values.yml").write_text(content)
        assert beside(here / "values.yml") == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_what_the_disk_refuses_is_told(here, monkeypatch, code):
    def refuse(*args, **keys):
        raise OSError(code, os.strerror(code), "place")

    monkeypatch.setattr("eeve_axolotl.recipes.copy", refuse)
    assert f"place: {os.strerror(code)}" in told("recipes")


@pytest.mark.parametrize("command, called", [
    (["recipes"], "eeve_axolotl.recipes.copy"),
    (["run", "pipeline.yml"], "eeve_axolotl.pipeline.launch.launch"),
    (["tokenizer", "tokenizer.yml"], "eeve_axolotl.tokenizer.build._learn"),
    (["report", "pipeline"], "eeve_axolotl.report.write"),
])  # fmt: skip
def test_ctrl_c_is_one_line_and_leaves_nothing_half_written(here, monkeypatch, command, called):
    def interrupted(*args, **keys):
        with writing(here / "file"):
            (here / ".file.unfinished").write_text("half")
            raise KeyboardInterrupt

    tokenizer = {"base": "base", "output": "new", "corpus": [{"path": "text.jsonl"}]}
    (here / "tokenizer.yml").write_text(yaml.safe_dump(tokenizer))
    monkeypatch.setattr(called, interrupted)
    ended = CliRunner().invoke(eeve, command)
    assert ended.exit_code == 130
    assert [line for line in ended.output.splitlines() if "Stopped" in line] == [
        "Stopped. What was finished stays: run the same command again to go on from there"
    ]
    assert "Traceback" not in ended.output and not list(here.glob("*file*.unfinished"))
