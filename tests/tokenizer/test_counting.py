"""Counting words is counting tokens: exact, whatever the memory, the processes, or the kill in between."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import Source
from eeve_axolotl.tokenizer import counting, tally
from eeve_axolotl.tokenizer.base import extended_state, model_of
from eeve_axolotl.tokenizer.select import count_tokens, tokens_of
from eeve_axolotl.tokenizer.words import Segmentation
from tests.conftest import corpus

NEW = ["가", "나", "한", "국", "어", "다", "▁가", "한국", "▁한국", "한국어", "▁한국어", "가나", "나다", "니다", "▁나"]


@pytest.fixture(scope="session")
def state(base_tokenizer) -> dict:
    return json.loads(base_tokenizer.backend_tokenizer.to_str())


@pytest.fixture(scope="session")
def segmentation(state) -> Segmentation:
    return Segmentation(state, ["Hangul"])


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def table(counted: counting.WordTable) -> list[dict]:
    return parquet.read_table(counted.path).to_pylist()


def expected(texts: list[str], segmentation: Segmentation) -> list[dict]:
    """The table by Python's own counting."""
    counts, documents = Counter(), Counter()
    for text in texts:
        words = segmentation.words(text)
        counts.update(words)
        documents.update(set(words))
    return [{"word": word, "count": counts[word], "documents": documents[word]} for word in sorted(counts)]


def with_letters(counts: Counter, script: str = "Hangul") -> dict:
    return {token: n for token, n in counts.items() if regex.search(rf"\p{{Script={script}}}", token)}


def re_encoded(state: dict, new: list[str], texts: list[str]) -> Counter:
    """What the whole extended tokenizer makes of the whole corpus."""
    return tokens_in(Tokenizer.from_str(json.dumps(extended(state, new))), texts)


def tokens_in(tokenizer: Tokenizer, texts: list[str]) -> Counter:
    return Counter(
        token for encoding in tokenizer.encode_batch(texts, add_special_tokens=False) for token in encoding.tokens
    )


def extended(state: dict, new: list[str]) -> dict:
    return extended_state(state, new, len(state["model"]["vocab"]))


def from_words(state: dict, new: list[str], texts: list[str], segmentation: Segmentation, directory: Path) -> Counter:
    path = write(directory / "texts.jsonl", [text for text in texts if text] or ["가"])
    counted = counting.count(Source(path=str(path)).shards(), segmentation, directory / "work")
    return count_tokens(extended(state, new), counted)


@pytest.fixture(scope="session")
def real_texts() -> list[str]:
    with gzip.open(corpus("sample_ko_en.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [text for line in lines for text in json.loads(line).values() if isinstance(text, str) and text]


@pytest.fixture(scope="session")
def real_tokens(real_texts, state) -> list[str]:
    """Letters and parts of words that the real text has: what a selection would propose."""
    words = Counter(word for text in real_texts for word in Segmentation(state, ["Hangul"]).words(text))
    letters = Counter(letter for word, n in words.items() for letter in word.strip("▁") * n)
    parts = Counter(
        word[:stop]
        for word, n in words.most_common(4000)
        for stop in range(2, min(len(word), 5) + 1)
        if not word.startswith("▁▁")
    )
    new = [letter for letter, _ in letters.most_common(600)] + [part for part, _ in parts.most_common(3000)]
    return [token for token in dict.fromkeys(new) if token not in state["model"]["vocab"]]


def test_real_text_counts_equal_re_encoding_it(real_texts, real_tokens, state, segmentation, tmp_path):
    ours = from_words(state, real_tokens, real_texts, segmentation, tmp_path)
    theirs = re_encoded(state, real_tokens, real_texts)
    assert with_letters(ours) == with_letters(theirs)
    assert sum(with_letters(ours).values()) > 10_000


PIECES = st.sampled_from(
    ["가", "나", "다", "한국어", "니다", "한", "ㄱ", "각", " ", "  ", "   ", "▁", "▁▁", "\n", "\t", "\r", "\0", "\x85",
     "\u3000", "\u00a0", "\u200b", "\u0301", "a", "the", "漢", "α", ".", "<s>", "</s>", "<unk>", "<0x0A>", "🙂", "🇰🇷"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=25).map("".join)


@pytest.fixture(scope="session")
def with_new(state) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(extended(state, NEW)))


@pytest.fixture(scope="session")
def model_with_new(state) -> Tokenizer:
    return model_of(extended(state, NEW))


@settings(max_examples=1500, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_random_text_counts_equal_re_encoding_it(texts, segmentation, with_new, model_with_new):
    words = Counter(word for text in texts for word in segmentation.words(text))
    assert with_letters(tokens_of(model_with_new, InMemory(words))) == with_letters(tokens_in(with_new, texts))


class InMemory:
    """Words as `count_tokens` reads them from a table."""

    def __init__(self, words: Counter):
        self.words = words

    def batches(self):
        yield list(self.words), list(self.words.values())


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_compiled_counts_equal_python_counts(texts, segmentation, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tally")
    counted = tally.Tally(segmentation, directory / "part", 0)
    for text in texts:
        counted.add(text)
    counted.close()
    found = [row for name in counted.files for row in parquet.read_table(directory / name).to_pylist()]
    assert found == expected(texts, segmentation)


# Bases whose words are bounded otherwise: each a change of the real one.
def _legacy(state):
    steps = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    return {**state, "normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}


def _gemma(state):
    return {
        **state,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "added_tokens": state["added_tokens"]
        + [{**state["added_tokens"][0], "id": state["model"]["vocab"][token], "content": token} for token in ("▁▁▁", "of")],
    }  # fmt: skip


def _split(state):
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {**state, "pre_tokenizer": metaspace}


def _nfkc(state):
    return {**state, "normalizer": {"type": "NFKC"}}


def _greedy_specials(state):
    added = [{**token, "lstrip": True, "rstrip": True} for token in state["added_tokens"]]
    return {**state, "added_tokens": added}


def _tied(state):
    """Base tokens that tie letters to others: a mark after, a bracket before, a space after a mark."""
    model = state["model"]
    vocab, merges = dict(model["vocab"]), list(model["merges"])
    for pair in (["가", "."], ["(", "나"], [".", "▁"], ["가.", "▁"], ["▁", "한"]):
        merges.append(pair)
        for token in (*pair, "".join(pair)):
            vocab.setdefault(token, len(vocab))
    return {**state, "model": {**model, "vocab": vocab, "merges": merges}}


@pytest.mark.parametrize("change", [_legacy, _gemma, _split, _nfkc, _greedy_specials, _tied])
def test_counts_of_other_bases_equal_re_encoding(change, state, tmp_path):
    base = change(state)
    pieces = [*"가나다한국어ab.(,", " ", "  ", "   ", "    ", "▁", "\n", "가.", "(나", "<s>", "</s>", "of", "ﬁ", "각"]
    dice = random.Random(0)
    texts = ["".join(dice.choices(pieces, k=dice.randint(1, 60))) for _ in range(1500)]
    new = [token for token in NEW if token not in base["model"]["vocab"]]
    ours = from_words(base, new, texts, Segmentation(base, ["Hangul"]), tmp_path)
    assert with_letters(ours) == with_letters(re_encoded(base, new, texts))


def test_latin_words_keep_what_the_base_ties_to_them(state, tmp_path):
    """Almost every base token has Latin letters: words are then bounded by what these tie together."""
    dice = random.Random(1)
    pieces = ["the", " ", "  ", "don't", ".com", "(s)", "ầ", "ữ", "\n", "việt", "-", "_", "1", "é"]
    texts = ["".join(dice.choices(pieces, k=dice.randint(1, 30))) for _ in range(500)]
    new = [token for token in ["ệt", "việt", "ầữ"] if token not in state["model"]["vocab"]]
    latin = Segmentation(state, ["Latin"])
    assert not latin.exactly_spans
    ours = from_words(state, new, texts, latin, tmp_path)
    assert with_letters(ours, "Latin") == with_letters(re_encoded(state, new, texts), "Latin")
