"""The figures of what new tokens save are those of the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import savings
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings

TRAIN = "가나다 나다라 뷁뷁 the end. " * 30
HELD_OUT = "가나다 라라 뷁 held out 쀍"


def write(path: Path, *texts: str) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def directory(base_tokenizer_directory, tmp_path_factory) -> Path:
    here = tmp_path_factory.mktemp("report")
    build(
        TokenizerSettings(
            base=str(base_tokenizer_directory), output=str(here / "tokenizer"), min_count=5, new_tokens=6,
            corpus=[{"path": write(here / "train.jsonl", TRAIN)}], intermediate_vocab_size=60,
            held_out=[{"path": write(here / "held_out.jsonl", HELD_OUT)}],
        )
    )  # fmt: skip
    return here / "tokenizer"


def test_fertility_is_counted(base_tokenizer):
    found = savings.fertility(base_tokenizer.backend_tokenizer, ["쀍 a", "the"])
    assert (found.characters, found.words, found.bytes) == (6, 3, 8)
    # ▁ and three bytes and ▁a; ▁the
    assert (found.tokens, found.byte_tokens) == (6, 3)
    assert found.per_word() == 2 and found.fallback() == 0.5 and found.bytes_per_token() == 8 / 6


def test_the_report_says_what_the_tokenizers_do(directory, base_tokenizer):
    text = (directory / "report" / "report.md").read_text(encoding="utf-8")
    extended = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for name, content in (("train", TRAIN), ("held out", HELD_OUT)):
        before, after = (
            savings.fertility(each, [content]) for each in (base_tokenizer.backend_tokenizer, extended)
        )
        assert before.tokens > after.tokens
        for which, each in (("base", before), ("extended", after)):
            row = next(line for line in text.splitlines() if line.startswith(f"| {name} | {which} |"))
            cells = [cell.strip() for cell in row.split("|")[3:-1]]
            assert cells == [
                f"{each.per_character():.3f}", f"{each.per_word():.3f}", f"{each.bytes_per_token():.2f}",
                f"{each.fallback():.2%}", f"{before.tokens / each.tokens:.2f}x",
            ]  # fmt: skip
    manifest = json.loads((directory / "eeve_tokenizer.json").read_text(encoding="utf-8"))
    assert all(f"`{token}` {count:,}" in text for token, count in manifest["counts"].items())
    assert (directory / "report" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_coverage_ends_at_what_was_chosen(directory):
    manifest = json.loads((directory / "eeve_tokenizer.json").read_text(encoding="utf-8"))
    curve = dict(savings.coverage(manifest))
    words = manifest["tokens_in_words"]
    assert curve[0] == 0
    assert curve[len(manifest["counts"])] == pytest.approx(1 - words["extended"] / words["base"])


def test_a_sample_takes_from_each_file(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", *(name * 10 for _ in range(10)))
    shards = Source(path=str(tmp_path)).shards()
    assert list(savings.sample(shards, 60)) == ["a" * 10] * 3 + ["b" * 10] * 3
