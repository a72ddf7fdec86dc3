"""`axolotl eeve corpus` from files to shards: what was planted is found and counted, and a killed run ends the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from eeve_axolotl.cli import eeve
from eeve_axolotl.corpus import pipeline, steps
from eeve_axolotl.corpus.manifest import MANIFEST, check_recipe
from eeve_axolotl.corpus.settings import CorpusSettings
from eeve_axolotl.corpus.store import read_json, rows
from eeve_axolotl.errors import EEVEError
from tests.corpus.conftest import Maker, write_jsonl

MENU = "이 사이트의 모든 글은 회원만 볼 수 있습니다. 자세한 것은 안내를 보십시오."


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Three small corpora without anything planted: 120 Korean, 80 English documents and 120 aligned pairs."""
    directory, maker = tmp_path_factory.mktemp("sources"), Maker(seed=3)
    korean = [maker.document("ko") for _ in range(120)]
    write_jsonl(directory / "ko-0.jsonl", korean[:70])
    write_jsonl(directory / "ko-1.jsonl", korean[70:])
    write_jsonl(directory / "en.jsonl", [maker.document("en") for _ in range(80)])
    pairs = [(maker.english_sentence(24), maker.korean_sentence(16)) for _ in range(120)]
    lines = [json.dumps({"en": en, "ko": ko}, ensure_ascii=False) + "\n" for en, ko in pairs]
    (directory / "pairs.jsonl").write_text("".join(lines), "utf-8")
    return directory


@pytest.fixture
def settings(sources, tokenizer_directory, tmp_path):
    """Makes settings for `sources`; keywords replace top-level keys."""

    def make(**changes) -> CorpusSettings:
        korean = {
            "share": 0.5,
            "language": "ko",
            "rule": "coverage",
            "sources": [{"path": f"{sources}/ko-*.jsonl"}],
        }
        english = {"share": 0.3, "language": "en", "sources": [{"path": f"{sources}/en.jsonl"}]}
        parallel = {"share": 0.2, "template": "{en}\n{ko}", "sources": [{"path": f"{sources}/pairs.jsonl"}]}
        whole = {
            "tokenizer": str(tokenizer_directory),
            "output": str(tmp_path / "corpus"),
            "work": str(tmp_path / "work"),
            "mix": {"korean": korean, "english": english, "parallel": parallel},
            "budget": {"share": 0.5},
            "held_out": {"share": 0.05},
            "write": {"shards": 3},
        }
        return CorpusSettings(**{**whole, **changes})

    return make


def only_korean(path: Path, **changes) -> dict:
    """A mix of one Korean group that reads `path`."""
    return {"korean": {"share": 1.0, "language": "ko", "sources": [{"path": str(path)}], **changes}}


def shards(output: Path) -> dict[str, bytes]:
    """The bytes of every shard."""
    return {str(file.relative_to(output)): file.read_bytes() for file in sorted(output.glob("*/*.parquet"))}


def texts(output: Path, split: str) -> list[str]:
    return [row["text"] for file in sorted((output / split).glob("*.parquet")) for row in rows(file)]


def seen(output: Path) -> dict[str, int]:
    """Documents per reason, over all steps, of the group `korean`."""
    steps = read_json(output / MANIFEST)["steps"].values()
    return {reason: entry[0] for step in steps for reason, entry in step.get("korean", {}).items()}


def test_whole_run(settings):
    output = pipeline.build(settings())
    manifest = read_json(output / MANIFEST)
    for name, entry in manifest["groups"].items():
        assert entry["share"] == pytest.approx(entry["asked"], abs=0.01), name
    given = sum(entry["given"] for entry in manifest["groups"].values())
    assert 0.95 * manifest["budget"] < given <= manifest["budget"]
    train, held_out = texts(output, "train"), texts(output, "held_out")
    assert len(train) == sum(entry["documents"] for entry in manifest["groups"].values())
    assert sum(len(text.encode()) for text in train) == sum(e["bytes"] for e in manifest["groups"].values())
    assert len(held_out) == sum(e["documents"] for e in manifest["held_out"]["groups"].values()) > 0
    assert manifest["held_out"]["passages"] > 0 and manifest["held_out"]["passages_in_train"] == 0
    assert not set(train) & set(held_out)
    assert any("\n" in text and text.isascii() is False and text[0].isascii() for text in train)  # pairs
    assert not list(output.parent.glob("*.partial"))
    report = (output / "README.md").read_text("utf-8")
    assert "| korean | coverage | 50.00% |" in report and (output / "new_tokens.png").stat().st_size


def test_table_of_new_tokens_counts_the_shards(settings, tokenizer_directory):
    """What the table says each token has in the chosen text is what the shards hold."""
    from transformers import AutoTokenizer

    output = pipeline.build(settings())
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory)
    counted: dict[int, int] = {}
    for text in texts(output, "train"):
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            counted[token] = counted.get(token, 0) + 1
    table = pq.read_table(output / "tokens.parquet").to_pylist()
    assert {row["id"]: row["chosen"] for row in table} == {row["id"]: counted.get(row["id"], 0) for row in table}
    short = (output / "short_of_text.txt").read_text("utf-8").split()
    assert short == [row["token"] for row in table if row["in_corpus"] < row["target"]] and short
