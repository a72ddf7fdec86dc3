"""tools/next_axolotl.py: what it says of an Axolotl that is here, as it is and with three things broken."""

import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import ROOT

HERE = version("axolotl")

# As a next release might: a hook and a config key that are gone, and a method that takes its parameters in another order.
BREAKS = """
from axolotl.core.trainers.base import AxolotlTrainer
from axolotl.integrations.base import BasePlugin
from axolotl.utils.schemas.config import AxolotlInputConfig

del BasePlugin.post_model_build
del AxolotlInputConfig.__pydantic_fields__["unfrozen_parameters"]


def log(self, start_time, logs):
    pass


AxolotlTrainer.log = log
"""


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("next_axolotl", ROOT / "tools" / "next_axolotl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_broken_is_told_in_sentences_and_nothing_else(tool, tmp_path, monkeypatch, capsys):
    (tmp_path / "breaks.py").write_text(BREAKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p breaks")
    monkeypatch.setattr(tool, "CONTRACT", tool.CONTRACT[:1])  # the other file trains
    assert tool.main([HERE, "--environment", sys.prefix]) == 1
    *sentences, last = capsys.readouterr().out.splitlines()
    assert sorted(sentences) == [
        "NOT SO: a hook is one of axolotls and takes what it is given (post_model_build). "
        "Axolotl has no hook post_model_build",
        "NOT SO: a key is one of axolotls (unfrozen_parameters). Axolotl's config has no key unfrozen_parameters",
        "NOT SO: a method takes what axolotls takes (log). "
        "Axolotl's log takes self, start_time, logs; ours takes self, logs",
    ]
    assert last.startswith(f"Axolotl {HERE}: 3 things broke; ")


@pytest.mark.parametrize(
    "content, told, status",
    [
        (
            "import no_such_module",
            "NOT SO: test_one can be imported. ModuleNotFoundError: No module named 'no_such_module'",
            1,
        ),
        (
            "import pytest\n@pytest.fixture\ndef ran():\n    assert 0, '`axolotl train` does not run'\n"
            "def test_a(ran): pass\ndef test_b(ran): pass",
            "NOT SO: the tests can begin. `axolotl train` does not run",
            1,
        ),
        ("def test_a(): pass", None, 0),
    ],
    ids=["it cannot be imported", "it cannot begin", "nothing is broken"],
)
def test_a_cause_of_several_failures_is_told_once(tool, tmp_path, monkeypatch, capsys, content, told, status):
    (tmp_path / "test_one.py").write_text(content)
    monkeypatch.setattr(tool, "CONTRACT", [str(tmp_path / "test_one.py"), f"--rootdir={tmp_path}"])
    assert tool.main([HERE, "--environment", sys.prefix]) == status
    *sentences, last = capsys.readouterr().out.splitlines()
    assert sentences == ([told] if told else [])
    assert last.startswith(f"Axolotl {HERE}: {'1 thing' if told else 'nothing'} broke; ")


def test_what_it_runs_is_there(tool):
    assert all((ROOT / each).is_file() for each in tool.CONTRACT)


def test_an_environment_with_another_version_is_refused_and_nothing_is_installed(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "build", lambda *_: pytest.fail("it would install"))
    assert tool.main(["0.1.0", "--environment", sys.prefix]) == 2
    assert capsys.readouterr().out == f"{Path(sys.prefix)} has Axolotl {HERE}, not 0.1.0\n"


def test_an_environment_is_made_by_the_makefiles_rule_for_that_version(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    rule = ".venv-0.99/ready:\n\tmkdir -p .venv-0.99\n\techo $(AXOLOTL) > $@\n"
    (tmp_path / "Makefile").write_text(rule)
    for patch in ("0.99.0", "0.99.1"):  # the second in the place of the first
        tool.build(patch, tmp_path / ".venv-0.99")
        assert (tmp_path / ".venv-0.99/ready").read_text() == f"{patch}\n"
