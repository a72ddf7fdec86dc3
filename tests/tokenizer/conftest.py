"""Shared by the tests of the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer.counting import WordTable, count
from eeve_axolotl.tokenizer.words import PlainWordSplitter


@pytest.fixture(scope="session")
def state(base_tokenizer) -> dict:
    """The base tokenizer's JSON."""
    return json.loads(base_tokenizer.backend_tokenizer.to_str())


@pytest.fixture(scope="session")
def splitter(state) -> PlainWordSplitter:
    return PlainWordSplitter(state, ["Hangul"])


@pytest.fixture
def table_of(splitter, tmp_path):
    """A function: the table of some texts' words."""

    def make(*texts: str) -> WordTable:
        path: Path = tmp_path / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        return count(Source(path=str(path)).shards(), splitter, tmp_path / "work")

    return make
