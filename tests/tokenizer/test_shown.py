"""What `axolotl eeve tokens` shows of a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.records import TOKENIZER_MANIFEST
from tests.conftest import extended

WORDS = ["▁마을", "▁작은"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory, base_tokenizer, base_tokenizer_directory):
    """base/, and one/ and two/ which extend it by a word and two."""
    ground = tmp_path_factory.mktemp("ground")
    (ground / "base").symlink_to(base_tokenizer_directory)
    for name, words in (("one", WORDS[:1]), ("two", WORDS)):
        tokenizer = extended(base_tokenizer, words)
        tokenizer.save_pretrained(ground / name)
        new = sorted(
            tokenizer.get_vocab().items() - base_tokenizer.get_vocab().items(), key=lambda entry: entry[1]
        )
        manifest = {
            "base": "base",
            "base_vocab_size": len(base_tokenizer),
            "counts": {token: 1 for token, _ in new},
        }
        (ground / name / TOKENIZER_MANIFEST).write_text(json.dumps(manifest))
    return ground


@pytest.fixture
def tokens(ground, monkeypatch):
    monkeypatch.chdir(ground)
    return lambda *arguments, **how: CliRunner().invoke(eeve, ["tokens", *arguments], **how)


def figures(output: str) -> dict[str, list[str]]:
    """The rows of the table at the end, by the tokenizer's last name."""
    rows = output[output.index("tokenizer  ") :].splitlines()[1:]
    return {name.rpartition("/")[2]: numbers for name, *numbers in (row.split() for row in rows if row)}


def test_an_extended_tokenizer_is_shown_beside_its_base(tokens):
    output = tokens("two", "작은 마을 쎕\n").output
    assert "▁작은|▁마을|▁|<0xEC>|<0x8E>|<0x95>|<0x0A>" in output and "▁|작|은|▁|마|을|▁|<0xEC>" in output
    assert figures(output) == {
        "base": ["11", "1.375", "0", "4", "1.00x"],
        "two": ["7", "0.875", "2", "4", "1.57x"],
    }


def test_several_are_compared_with_the_first(tokens):
    assert {
        name: row[0] for name, row in figures(tokens("base", "one", "two", "작은 마을").output).items()
    } == {
        "base": "6",
        "one": "4",
        "two": "2",
    }


def test_text_comes_from_a_file_or_standard_input(tokens, tmp_path):
    (tmp_path / "text.txt").write_text("마을" * 2000, encoding="utf-8")
    output = tokens("one", "--file", str(tmp_path / "text.txt")).output
    assert "the first 2,000 of 4,000 characters" in output and figures(output)["base"][0] == "4,001"
    assert figures(tokens("one", "--file", "-", input="마을").output)["one"][0] == "1"


def test_a_base_that_is_not_here_is_left_out(tokens, ground, tmp_path, monkeypatch):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "one").symlink_to(ground / "one")
    record = json.loads((ground / "one" / TOKENIZER_MANIFEST).read_text())
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert set(figures(tokens("마을").output)) == {"base", "one"}
    monkeypatch.chdir(tmp_path)
    alone = Path("alone")
    alone.mkdir()
    (alone / "tokenizer.json").symlink_to(ground / "one" / "tokenizer.json")
    (alone / TOKENIZER_MANIFEST).write_text(json.dumps(record | {"base": "some/where"}))
    assert set(figures(tokens("alone", "마을").output)) == {"alone"}


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "there is no text; give it last"),
        (["마을"], "which tokenizer? there are one, two; give its directory before the text"),
        (["nowhere", "마을"], "no tokenizer at nowhere"),
        (["one", "--file", "nowhere"], "nowhere: No such file"),
    ],
)
def test_what_is_missing_is_told(tokens, arguments, sentence):
    result = tokens(*arguments)
    assert result.exit_code == 1 and sentence in result.output and "Traceback" not in result.output
