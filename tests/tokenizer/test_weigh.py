"""Words weighed by domain: no entry of the corpus chooses all tokens alone, and what is told are occurrences."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.settings import TokenizerSettings

SYLLABLES = [chr(0xAC00 + 28 * n) for n in range(0, 300, 3)]


def write(path: Path, seed: int, words: int, times: int) -> Path:
    """Text of `words` distinct words, each about `times` times, in documents of twenty."""
    draw = random.Random(seed)
    own = ["".join(draw.choices(SYLLABLES, k=3)) for _ in range(words)]
    text = own * times
    draw.shuffle(text)
    documents = [" ".join(text[n : n + 20]) for n in range(0, len(text), 20)]
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in documents), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> list[Path]:
    """A domain with 200 words, each 200 times, and a fortieth of its size with 10 others, each 100 times."""
    directory = tmp_path_factory.mktemp("domains")
    return [write(directory / "large.jsonl", 1, 200, 200), write(directory / "small.jsonl", 2, 10, 100)]


@pytest.fixture
def made(small_tokenizer_directory, tmp_path):
    """A function: the manifest and the tokenizer's bytes of a build with the given keys."""

    def make(name: str, files: list[Path], **keys) -> tuple[dict, bytes]:
        output = tmp_path / name
        corpus = [{"path": str(file)} for file in files]
        wanted = {"new_tokens": 200, "min_count": 2, "intermediate_vocab_size": 2000, **keys}
        manifest = build(
            TokenizerSettings(
                base=str(small_tokenizer_directory), output=str(output), corpus=corpus, **wanted
            )
        )
        return manifest, (output / "tokenizer.json").read_bytes()

    return make


def words_of(manifest: dict, file: Path) -> int:
    """How many of the new tokens of several letters are in a file's text."""
    text = file.read_text(encoding="utf-8").encode().decode("unicode_escape")
    return sum(len(token.lstrip("▁")) > 1 and token.lstrip("▁") in text for token in manifest["counts"])


def test_a_small_domain_gets_tokens_that_a_large_one_would_take(made, domains):
    by_count, _ = made("count", domains)
    by_domain, _ = made("domain", domains, weigh_words_by="domain")
    assert words_of(by_domain, domains[1]) > words_of(by_count, domains[1]) + 5


def test_the_threshold_and_the_counts_are_occurrences(made, domains):
    least = 150  # more than the small domain's words occur, less than they weigh
    manifest, _ = made("domain", domains, weigh_words_by="domain", min_count=least)
    longer = {token: n for token, n in manifest["counts"].items() if len(token.lstrip("▁")) > 1}
    assert longer
    assert min(longer.values()) >= least
    assert not words_of(manifest, domains[1])


def test_with_one_entry_words_are_counted(made, domains):
    assert made("count", domains[:1])[1] == made("domain", domains[:1], weigh_words_by="domain")[1]


def test_the_same_text_gives_the_same_tokenizer_with_any_number_of_workers(made, domains):
    one = made("one", domains, weigh_words_by="domain", workers=1)[1]
    assert one == made("two", domains, weigh_words_by="domain", workers=2)[1]


def test_counts_that_were_kept_are_weighed_by_the_domains_of_now(made, domains, tmp_path):
    files = [*domains, write(tmp_path / "third.jsonl", 3, 20, 120)]
    grouped = [domains[0].with_name("*.jsonl"), files[2]]  # the same files, the first two in one entry
    kept = {"work_directory": str(tmp_path / "work"), "keep_work": True, "weigh_words_by": "domain"}
    first, other = made("first", files, **kept)[1], made("other", grouped, **kept)[1]
    assert first != other == made("anew", grouped, weigh_words_by="domain")[1]
    assert made("again", files, **kept)[1] == first
    (note,) = (tmp_path / "work").rglob("weights.json")
    note.write_text("{")  # as a disk that failed may leave it
    assert made("broken", files, **kept)[1] == first
