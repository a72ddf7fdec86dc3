"""The selection: what it counts is what the tokenizer makes, and it ends where nothing is to drop or add."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.tokenizer.base import extended_state
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.candidate_counts import CandidateCounter
from eeve_axolotl.tokenizer.rules import SelectionRules
from eeve_axolotl.tokenizer.select import select
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.token_counts import count_tokens
from tests.conftest import corpus

BUDGET, LEAST = 600, 8


@pytest.fixture(scope="module")
def sample() -> Path:
    return corpus("sample_ko_en.jsonl.gz")


@pytest.fixture(scope="module")
def built(sample, base_tokenizer_directory, tmp_path_factory):
    """A small build from real text, and another with the same settings."""
    directory = tmp_path_factory.mktemp("built")
    for name in ("one", "two"):
        build(
            TokenizerSettings(
                base=str(base_tokenizer_directory), output=str(directory / name), corpus=[{"path": str(sample)}],
                new_tokens=BUDGET, min_count=LEAST, intermediate_vocab_size=4000,
                held_out=[{"path": str(sample)}], workers=1 if name == "one" else 2,
            )
        )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def manifest(built) -> dict:
    return json.loads((built / "one" / "eeve_tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def texts(sample) -> list[str]:
    with gzip.open(sample, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def test_every_new_token_is_produced_and_frequent_enough(manifest, built, texts):
    assert manifest["unreachable"] == 0
    tokenizer = Tokenizer.from_file(str(built / "one" / "tokenizer.json"))
    counts = Counter(
        token for each in tokenizer.encode_batch(texts, add_special_tokens=False) for token in each.tokens
    )
    letters = Counter("".join(texts))
    assert len(manifest["counts"]) == manifest["vocab_size"] - manifest["base_vocab_size"]
    for token, count in manifest["counts"].items():
        assert counts[token] == count
        assert (letters if len(token) == 1 else counts)[token] >= LEAST


def test_the_last_round_changed_nothing_that_helps(manifest):
    rounds = manifest["rounds"]
    assert sum(each["dropped"] for each in rounds) > 0
    assert sum(each["added"] for each in rounds) > 0
    totals = [each["total"] for each in rounds if not each["dropped"]]
    assert manifest["tokens_in_words"]["extended"] == min(totals)
    for before, after in pairwise(rounds):
        if before["dropped"]:
            assert after["tokens"] == before["tokens"] - before["dropped"]
            assert after["added"] == 0


def test_same_inputs_give_the_same_bytes(built):
    names = {str(file.relative_to(built / "one")) for file in (built / "one").rglob("*") if file.is_file()}
    assert {"tokenizer.json", "eeve_tokenizer.json", "candidates.tsv"} <= names
    for name in names:
        assert (built / "one" / name).read_bytes() == (built / "two" / name).read_bytes(), name


def test_english_is_as_before(built, texts, base_tokenizer):
    tokenizer = Tokenizer.from_file(str(built / "one" / "tokenizer.json"))
    english = [text for text in texts if not any("가" <= letter <= "힣" for letter in text)]
    assert len(english) > 50
    for ours, base in zip(
        tokenizer.encode_batch(english), base_tokenizer.backend_tokenizer.encode_batch(english), strict=True
    ):
        assert ours.ids == base.ids


SNIPPETS = st.sampled_from(
    ["한국어", "안녕하세요", " 은", "다.", "뷁", "ᄒ", "\u1112\u1161\u11ab", "  ", "\n", "\t", "▁", "▁▁", "<0x41>", "<s>",
     "</s>", " the", "漢字", "🙂", "\u200d", "\u0301", "\0", "é"]
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(built) -> Tokenizer:
    return Tokenizer.from_file(str(built / "one" / "tokenizer.json"))


@settings(max_examples=3000, deadline=None)
@given(text=st.lists(SNIPPETS | st.text(max_size=5), max_size=12).map("".join))
def test_random_unicode_decodes_as_with_the_base(tokenizer, base_tokenizer, text):
    base = base_tokenizer.backend_tokenizer
    old, new = (each.encode(text, add_special_tokens=False).ids for each in (base, tokenizer))
    for skip in (True, False):
        assert tokenizer.decode(new, skip_special_tokens=skip) == base.decode(old, skip_special_tokens=skip)
    if not regex.search(r"\p{Script=Hangul}", text):
        assert new == old


def test_candidates_say_what_became_of_each(built, manifest, texts):
    header, *lines = (built / "one" / "candidates.tsv").read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == ["token", "count", "documents_at_most", "decision", "example"]
    rows = [line.split("\t") for line in lines]
    chosen = {token: int(count) for token, count, _, decision, _ in rows if decision == "chosen"}
    assert chosen == manifest["counts"]
    assert {decision.partition(": ")[2] for *_, decision, _ in rows if decision != "chosen"} >= {
        "others save more"
    }
    for token, count, documents, _, example in rows:
        if int(count):
            assert token.lstrip("▁") in example
            containing = sum(token.lstrip("▁") in text for text in texts)
            assert 1 <= int(documents) and (containing >= 1)


ALPHABET = "가나다▁"
WORDS = st.text(alphabet=ALPHABET + "뷁", min_size=1, max_size=12)
TOKENS = st.lists(st.text(alphabet=ALPHABET[:3], min_size=1, max_size=5), max_size=25, unique=True)


class InMemory:
    """A table of words in memory."""

    def __init__(self, words: dict[str, int]):
        self.words = words

    def batches(self):
        yield list(self.words), list(self.words.values())

    def record_batches(self, rows: int):
        import pyarrow

        counts = pyarrow.array(self.words.values(), pyarrow.int64())
        yield pyarrow.record_batch(
            [pyarrow.array(self.words, pyarrow.string()), counts, counts], ["word", "count", "documents"]
        )


@pytest.fixture(scope="module")
def small(state) -> dict:
    """The base with few merges: quick to build, with byte fallback and a boundary."""
    vocab = {token: n for token, n in state["model"]["vocab"].items() if n < 259} | {"▁": 259, "▁▁": 260}
    model = {**state["model"], "vocab": vocab, "merges": [["▁", "▁"]]}
    return {**state, "model": model}


@settings(max_examples=300, deadline=None)
@given(
    words=st.dictionaries(WORDS, st.integers(1, 9), min_size=1, max_size=15),
    tokens=TOKENS,
    without=st.sets(st.integers(0, 24)),
)
def test_compiled_counts_are_the_tokenizers(small, words, tokens, without):
    vocab = small["model"]["vocab"]
    tokens = [token for token in tokens if token not in vocab]
    counter = CandidateCounter(small, tokens)
    chosen = np.array([n not in without for n in range(len(tokens))], dtype=np.bool_)
    table = InMemory(words)
    counted = counter.count(table, chosen)
    kept = [token for token, keep in zip(tokens, chosen, strict=True) if keep]
    right = count_tokens(extended_state(small, kept, len(vocab)), table)
    assert counted.total == sum(right.values())
    assert counted.fallback == sum(n for token, n in right.items() if token.startswith("<0x"))
    assert dict(zip(tokens, counted.counts.tolist(), strict=True)) == {
        token: right[token] for token in tokens
    }


def chosen(state, table, **rules) -> list[str]:
    rules = {
        "first_id": len(state["model"]["vocab"]),
        "new_tokens": None,
        "intermediate_vocab_size": 100,
        "min_count": 3,
        "max_rounds": 50,
        **rules,
    }
    return select(state, table, SelectionRules(**rules)).tokens


def test_a_part_too_rare_by_itself_stays_for_what_is_worth_more(small, table_of):
    table = table_of("x가나다 " * 100 + "x가나라 " * 5)
    tokens = chosen(small, table)
    assert {"가나", "가나다"} <= set(tokens)
    assert "가나라" not in tokens
    counts = count_tokens(extended_state(small, tokens, len(small["model"]["vocab"])), table)
    assert counts["가나"] == 5 and counts["가나다"] == 100


def test_the_vocabulary_is_a_multiple(small, table_of):
    table = table_of("가나다라 마바사 아자차카 타파하 " * 5)
    size = len(small["model"]["vocab"])
    for budget in ({"new_tokens": 12}, {"new_tokens": None}):
        tokens = chosen(small, table, multiple=8, **budget)
        assert tokens and (size + len(tokens)) % 8 == 0
    with pytest.raises(EEVEError, match="is a multiple of 512; raise new_tokens or lower round_vocab_to"):
        chosen(small, table, multiple=512, new_tokens=3)


def test_nothing_frequent_enough_is_an_error(small, table_of):
    with pytest.raises(EEVEError, match="no new token occurs 99 times"):
        chosen(small, table_of("가나다"), min_count=99)


def test_too_few_rounds_are_an_error(small, table_of):
    with pytest.raises(EEVEError, match="did not settle in 1 rounds; raise max_rounds"):
        chosen(small, table_of("가나다라 마바사 " * 5), new_tokens=3, max_rounds=1)
