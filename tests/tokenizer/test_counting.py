"""Counting words is counting tokens: exact, whatever the memory, the processes, or the kill in between."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import pickle
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import FileShard, Source
from eeve_axolotl.tokenizer import counting, intermediate
from eeve_axolotl.tokenizer.base import extended_state, model_of
from eeve_axolotl.tokenizer.build import build
from eeve_axolotl.tokenizer.counting import word_counter, workers
from eeve_axolotl.tokenizer.counting.table import SCHEMA, WordTable
from eeve_axolotl.tokenizer.counting.word_counter import WordCounter
from eeve_axolotl.tokenizer.settings import TokenizerSettings
from eeve_axolotl.tokenizer.spelling import ByteLevel as ByteLevelSpelling
from eeve_axolotl.tokenizer.spelling import Spelling, byte_level_alphabet
from eeve_axolotl.tokenizer.token_counts import count_tokens, tokens_of
from eeve_axolotl.tokenizer.words import ByteLevelWordSplitter, PlainWordSplitter, WordSplitter
from tests.conftest import corpus

NEW = [
    "가",
    "나",
    "한",
    "국",
    "어",
    "다",
    "▁가",
    "한국",
    "▁한국",
    "한국어",
    "▁한국어",
    "가나",
    "나다",
    "니다",
    "▁나",
]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def table(counted: counting.WordTable) -> list[dict]:
    return parquet.read_table(counted.path).to_pylist()


def expected(texts: list[str], splitter: WordSplitter) -> list[dict]:
    """The table by Python's own counting."""
    counts, documents = Counter(), Counter()
    for text in texts:
        words = splitter.words(text)
        counts.update(words)
        documents.update(set(words))
    return [{"word": word, "count": counts[word], "documents": documents[word]} for word in sorted(counts)]


def with_letters(counts: Counter, script: str = "Hangul") -> dict:
    letter = regex.compile(rf"\p{{Script={script}}}")
    return {token: n for token, n in counts.items() if letter.search(token) and not token.startswith("<0x")}


def re_encoded(state: dict, new: list[str], texts: list[str]) -> Counter:
    """What the whole extended tokenizer makes of the whole corpus."""
    return tokens_in(Tokenizer.from_str(json.dumps(extended(state, new))), texts)


def tokens_in(tokenizer: Tokenizer, texts: list[str]) -> Counter:
    return Counter(
        token
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)
        for token in encoding.tokens
    )


def extended(state: dict, new: list[str]) -> dict:
    return extended_state(state, new, len(state["model"]["vocab"]))


def from_words(
    state: dict, new: list[str], texts: list[str], splitter: WordSplitter, directory: Path
) -> Counter:
    path = write(directory / "texts.jsonl", [text for text in texts if text] or ["가"])
    counted = counting.count(Source(path=str(path)).shards(), splitter, directory / "work")
    return count_tokens(extended(state, new), counted)


@pytest.fixture(scope="session")
def real_texts() -> list[str]:
    with gzip.open(corpus("sample_ko_en.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [
            text for line in lines for text in json.loads(line).values() if isinstance(text, str) and text
        ]


@pytest.fixture(scope="session")
def real_tokens(real_texts, state, splitter) -> list[str]:
    """Letters and parts of words that the real text has: what a selection would propose."""
    words = Counter(word for text in real_texts for word in splitter.words(text))
    letters = Counter(letter for word, n in words.items() for letter in word.strip("▁") * n)
    parts = Counter(
        word[:stop]
        for word, n in words.most_common(4000)
        for stop in range(2, min(len(word), 5) + 1)
        if not word.startswith("▁▁")
    )
    new = [letter for letter, _ in letters.most_common(600)] + [part for part, _ in parts.most_common(3000)]
    return [token for token in dict.fromkeys(new) if token not in state["model"]["vocab"]]


def test_real_text_counts_equal_re_encoding_it(real_texts, real_tokens, state, splitter, tmp_path):
    ours = from_words(state, real_tokens, real_texts, splitter, tmp_path)
    theirs = re_encoded(state, real_tokens, real_texts)
    assert with_letters(ours) == with_letters(theirs)
    assert sum(with_letters(ours).values()) > 10_000


PIECES = st.sampled_from(
    ["가", "나", "다", "한국어", "니다", "한", "ㄱ", "\u1100", "각", " ", "  ", "   ", "▁", "▁▁", "\n", "\t", "\r", "\0",
     "\x85", "\u3000", "\u00a0", "\u200b", "\u0301", "a", "the", "漢", "α", ".", "<s>", "</s>", "<unk>", "<0x0A>",
     "🙂", "🇰🇷", "가.", "(나", "don't", "the-", ") "]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=25).map("".join)


@pytest.fixture(scope="session")
def with_new(state) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(extended(state, NEW)))


@pytest.fixture(scope="session")
def model_with_new(state) -> Tokenizer:
    return model_of(extended(state, NEW))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_random_text_counts_equal_re_encoding_it(texts, splitter, with_new, model_with_new):
    words = Counter(word for text in texts for word in splitter.words(text))
    assert with_letters(tokens_of(model_with_new, InMemory(words))) == with_letters(
        tokens_in(with_new, texts)
    )


class InMemory:
    """Words as `count_tokens` reads them from a table."""

    def __init__(self, words: Counter):
        self.words = words

    def batches(self):
        yield list(self.words), list(self.words.values())


@pytest.fixture(scope="session", params=["letters after boundaries", "tied", "tied Latin", "byte-level"])
def any_splitter(request, state) -> WordSplitter:
    if request.param == "byte-level":
        base = Tokenizer(BPE(byte_level_alphabet(), []))
        base.pre_tokenizer = ByteLevel(add_prefix_space=False)
        return ByteLevelWordSplitter(json.loads(base.to_str()), ["Hangul", "Latin"])
    if request.param == "tied Latin":
        return PlainWordSplitter(_tied_latin(state), ["Latin"])
    return PlainWordSplitter(_tied(state) if request.param == "tied" else state, ["Hangul"])


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_compiled_counts_equal_python_counts(texts, any_splitter, tmp_path_factory):
    directory = tmp_path_factory.mktemp("counter")
    counted = WordCounter(any_splitter, directory / "part", 1_000_000)
    for text in texts:
        counted.add(text)
    counted.close()
    found = [row for name in counted.files for row in parquet.read_table(directory / name).to_pylist()]
    assert found == expected(texts, any_splitter)
    assert counted.bytes == sum(len(text.encode()) for text in texts)


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


def _tied_latin(state):
    model = state["model"]
    vocab, merges = dict(model["vocab"]), list(model["merges"])
    for pair in (["'", "t"], [".", "com"], ["the", "-"], [")", "▁"]):
        merges.append(pair)
        vocab.setdefault("".join(pair), len(vocab))
    return {**state, "model": {**model, "vocab": vocab, "merges": merges}}


@pytest.mark.parametrize("change", [_legacy, _gemma, _split, _nfkc, _greedy_specials, _tied])
def test_counts_of_other_bases_equal_re_encoding(change, state, tmp_path):
    base = change(state)
    pieces = [
        *"가나다한국어ab.(,",
        " ",
        "  ",
        "   ",
        "    ",
        "▁",
        "\n",
        "가.",
        "(나",
        "<s>",
        "</s>",
        "of",
        "ﬁ",
        "각",
    ]
    dice = random.Random(0)
    texts = ["".join(dice.choices(pieces, k=dice.randint(1, 60))) for _ in range(1500)]
    new = [token for token in NEW if token not in base["model"]["vocab"]]
    ours = from_words(base, new, texts, PlainWordSplitter(base, ["Hangul"]), tmp_path)
    assert with_letters(ours) == with_letters(re_encoded(base, new, texts))


@pytest.mark.parametrize("change", [dict, _tied_latin])
def test_latin_counts_equal_re_encoding(change, state, tmp_path):
    """A script that most of the base's tokens are in."""
    base = change(state)
    dice = random.Random(1)
    pieces = ["the", " ", "  ", "don't", ".com", "(s)", "ầ", "ữ", "\n", "việt", "-", "_", "1", "é", "e\u0301"]
    texts = ["".join(dice.choices(pieces, k=dice.randint(1, 30))) for _ in range(500)]
    new = [token for token in ["ệt", "việt", "ầữ", "ầthe"] if token not in base["model"]["vocab"]]
    ours = from_words(base, new, texts, PlainWordSplitter(base, ["Latin"]), tmp_path)
    theirs = re_encoded(base, new, texts)
    assert with_letters(ours, "Latin") == with_letters(theirs, "Latin")
    assert theirs["ệt"] + theirs["việt"]


# The same counts whatever the memory, the processes and what happened before.


@pytest.fixture(scope="module")
def texts() -> list[str]:
    dice = random.Random(2)
    letters = [chr(code) for code in range(0xAC00, 0xAC00 + 400)]
    words = ["".join(dice.choices(letters, k=dice.randint(1, 5))) for _ in range(3000)]
    return [
        "".join(
            dice.choice(words) + dice.choice([" ", " ", "  ", ", ", "\n", ""])
            for _ in range(dice.randint(0, 120))
        )
        for _ in range(600)
    ]


@pytest.fixture(scope="module")
def shards(texts, tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards")
    for n in range(6):
        write(directory / f"{n}.jsonl", texts[n * 100 : (n + 1) * 100])
    return Source(path=str(directory)).shards()


@pytest.fixture(scope="module")
def right(texts, splitter) -> list[dict]:
    return expected([text for text in texts if text], splitter)


@pytest.mark.parametrize("memory", [0, 100_000, 100_000_000])
def test_spilled_counts_equal_those_in_memory(memory, texts, right, splitter, tmp_path):
    counted = WordCounter(splitter, tmp_path / "part", memory)
    for text in texts:
        counted.add(text)
    counted.close()
    sums: dict[str, list[int]] = {}
    for name in counted.files:
        rows = parquet.read_table(tmp_path / name).to_pylist()
        assert [row["word"] for row in rows] == sorted(row["word"] for row in rows)
        for row in rows:
            entry = sums.setdefault(row["word"], [0, 0])
            entry[0] += row["count"]
            entry[1] += row["documents"]
    assert [{"word": w, "count": c, "documents": d} for w, (c, d) in sorted(sums.items())] == right
    assert len(counted.files) > 10 if memory < 1_000_000 else len(counted.files) == 1


def test_documents_longer_than_a_section_and_words_longer_than_the_arena(splitter, tmp_path):
    word = "가나다라" * 2_000_000  # 24 MB
    several = ["마바 사 " * 200_000, word, "아"]  # of 4.2 MB: 17 sections
    counted = WordCounter(splitter, tmp_path / "part", 1_000_000)
    for text in several:
        counted.add(text)
    counted.close()
    rows = [row for name in counted.files for row in parquet.read_table(tmp_path / name).to_pylist()]
    counts = Counter()
    for row in rows:
        counts[row["word"]] += row["count"]
    assert counts == {"▁마바": 200_000, "▁사": 200_000, "▁" + word: 1, "▁아": 1}


def test_long_words_of_one_hash_are_told_apart(monkeypatch, splitter, tmp_path):
    alphabet = word_counter._alphabet(splitter)._replace(bits=31, each=2)  # 33 bits are left of a hash
    monkeypatch.setattr(word_counter, "_alphabet", lambda splitter: alphabet)
    dice = random.Random(3)
    words = {"".join(dice.choices("가나다라마바사아자차카타파하", k=8)) for _ in range(400_000)}
    counted = WordCounter(splitter, tmp_path / "part", 1_000_000_000)
    counted.add("\n".join(sorted(words)))
    counted.close()
    (name,) = counted.files
    assert {
        word.removeprefix("▁") for word in parquet.read_table(tmp_path / name)["word"].to_pylist()
    } == words


def test_bytes_are_those_of_the_texts(state, tmp_path):
    texts = ["가", " 나 다", "<s>라<s>", "▁마", "abc", "🙂 사", "아.", "\ud800 자"]
    for base in (state, _tied(state)):
        counted = WordCounter(PlainWordSplitter(base, ["Hangul"]), tmp_path / "part", 1_000_000)
        for text in texts:
            counted.add(text)
        counted.close()
        assert counted.bytes == sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def test_table_is_exact(shards, right, splitter, tmp_path):
    counted = counting.count(shards, splitter, tmp_path)
    assert table(counted) == right
    assert counted.distinct == len(right) and counted.files == 6


def test_spans_leave_out_the_rarest_words(shards, right, splitter, tmp_path):
    counted = counting.count(shards, splitter, tmp_path)
    assert len(list(counted.spans())) == sum(len(splitter.spans(row["word"])) for row in right)
    for least in (2, 3, 10):
        kept = [row for row in right if row["count"] >= least]
        assert len(list(counted.spans(least))) == sum(len(splitter.spans(row["word"])) for row in kept)


def test_as_many_words_fit_as_their_letters_allow(shards, right, splitter, tmp_path, monkeypatch):
    monkeypatch.setattr("eeve_axolotl.tokenizer.counting.table.WORD_BYTES", 10_000)
    monkeypatch.setattr("eeve_axolotl.tokenizer.counting.table.LETTER_BYTES", 5_000)
    counted = counting.count(shards, splitter, tmp_path)

    def taken(least):
        return sum(10_000 + 5_000 * len(row["word"]) for row in right if row["count"] >= least)

    tried = set()
    for memory_mb in (1, 2, 4, 8, 16, 32, 64):
        least, words = counted.fitting(memory_mb)
        assert words == sum(row["count"] >= least for row in right)
        assert taken(least) <= memory_mb * 1_000_000
        assert least == 1 or taken(least - 1) > memory_mb * 1_000_000
        tried.add(least)
    assert len(tried) > 3


def test_words_that_fit_are_all_learned_from(shards, right, splitter, tmp_path):
    counted = counting.count(shards, splitter, tmp_path)
    assert counted.fitting(100) == counted.fitting(None) == (1, len(right))
    assert intermediate.learn(counted, 2_000, 100) == intermediate.learn(counted, 2_000)


@given(st.lists(st.text()))
def test_lengths_are_those_of_the_text_however_it_is_spelled(texts):
    texts = [re.sub("[\ud800-\udfff]", "", text) for text in texts]
    for spelling in (Spelling(), ByteLevelSpelling()):
        spelled = pyarrow.array([spelling.spell(text) for text in texts], pyarrow.string())
        assert spelling.lengths(spelled).to_pylist() == [len(text) for text in texts]


def test_a_table_is_not_in_memory_as_a_whole(splitter, tmp_path):
    chance = random.Random(0)
    words = sorted(
        {"▁" + "".join(chr(chance.randrange(0xAC00, 0xD7A4)) for _ in range(9)) for _ in range(200_000)}
    )
    rows = pyarrow.table([words, [1] * len(words), [1] * len(words)], schema=SCHEMA)
    parquet.write_table(rows, tmp_path / "words.parquet", row_group_size=2_000, compression=None)
    del rows
    large = WordTable(tmp_path / "words.parquet", splitter, files=1, documents=1, bytes=0)
    before, most, read = pyarrow.total_allocated_bytes(), 0, []
    for batch in large.record_batches(2_000):
        read += batch["word"].to_pylist()
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert read == words
    assert 0 < most < large.path.stat().st_size / 2


@pytest.fixture
def starting_is_cheap(monkeypatch):
    """Processes are started for the little text of tests too."""
    monkeypatch.setattr(workers, "_WORTH", 1)


def test_two_workers_count_as_one_does(starting_is_cheap, shards, texts, right, splitter, tmp_path):
    counted = counting.count(shards, splitter, tmp_path / "shards", workers=2)
    assert table(counted) == right
    one_file = Source(path=str(write(tmp_path / "all.jsonl", texts))).shards()
    counted = counting.count(one_file, splitter, tmp_path / "parts", workers=2)
    assert table(counted) == right
    assert len(list((tmp_path / "parts" / "marks").iterdir())) == 2
    assert counted.documents == sum(map(bool, texts))
    assert counted.bytes == sum(len(text.encode()) for text in texts)


def test_little_text_is_counted_here(monkeypatch, shards, right, splitter, tmp_path):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert table(counting.count(shards, splitter, tmp_path, workers=2)) == right


def test_text_of_unknown_size_is_counted_by_all_workers(monkeypatch, shards, right, splitter, tmp_path):
    started, start = [], subprocess.Popen

    def spy(*arguments, **more):
        started.append(start(*arguments, **more))
        return started[-1]

    monkeypatch.setattr(FileShard, "size", lambda self: 0)  # as a dataset's
    monkeypatch.setattr(subprocess, "Popen", spy)
    assert table(counting.count(shards, splitter, tmp_path, workers=2)) == right
    assert len(started) == 2


def test_workers_that_die_are_an_error(starting_is_cheap, monkeypatch, shards, splitter, tmp_path):
    monkeypatch.setattr(PlainWordSplitter, "__reduce__", lambda self: (os._exit, (9,)))  # as it is unpickled
    with pytest.raises(EEVEError, match=r"\.jsonl: the process that counted it ended with 9"):
        counting.count(shards, splitter, tmp_path, workers=2)


def test_two_ray_workers_count_as_one_does(shards, right, splitter, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        counted = counting.count(shards, splitter, tmp_path / "work", workers=2, engine="ray")
        assert table(counted) == right
        broken = tmp_path / "broken.jsonl"
        broken.write_text("no JSON\n")
        with pytest.raises(EEVEError, match="line 1: not a JSON object"):
            counting.count(
                Source(path=str(broken)).shards(), splitter, tmp_path / "other", workers=2, engine="ray"
            )
    finally:
        ray.shutdown()


KILLED = """
import os, pickle, signal, sys
from eeve_axolotl.tokenizer import counting, intermediate
from eeve_axolotl.tokenizer.counting import workers
from eeve_axolotl.tokenizer.counting.table import SCHEMA, WordTable
from eeve_axolotl.tokenizer.counting.word_counter import WordCounter

shards, splitter, directory = pickle.load(sys.stdin.buffer)
count_part, spill, done = workers.count_part, WordCounter._spill, []

def spill_and_die(self):
    spill(self)
    if len(done) == 3 and self.files:  # in the middle of the fourth file
        os.kill(os.getpid(), signal.SIGKILL)

def counted(*arguments):
    mark = count_part(*arguments)
    done.append(mark)
    return mark

WordCounter._spill, workers.count_part = spill_and_die, counted
counting.count(shards, splitter, directory)
"""


@pytest.fixture
def killed(shards, splitter, tmp_path) -> Path:
    """The directory of a run that was killed in the middle of its fourth file of six."""
    directory = tmp_path / "killed"
    run = subprocess.run([sys.executable, "-c", KILLED], input=pickle.dumps((shards, splitter, directory)))
    assert run.returncode == -signal.SIGKILL
    return directory


@pytest.fixture
def counted_files(monkeypatch) -> list[str]:
    """The names of the files that are really counted."""
    names, count_part = [], workers.count_part

    def spy(part, *arguments):
        names.append(part.shard.file.name)
        return count_part(part, *arguments)

    monkeypatch.setattr(workers, "count_part", spy)
    return names


def test_a_killed_run_goes_on_after_its_last_finished_file(killed, counted_files, shards, right, splitter):
    assert len(list((killed / "marks").iterdir())) == 3
    assert len(list((killed / "words").iterdir())) == 4
    counted = counting.count(shards, splitter, killed)
    assert counted_files == ["3.jsonl", "4.jsonl", "5.jsonl"]
    assert table(counted) == right
    counted_files.clear()
    assert table(counting.count(shards, splitter, killed)) == right
    assert counted_files == []


def test_files_that_changed_are_counted_again(counted_files, texts, splitter, tmp_path, caplog):
    paths = [write(tmp_path / f"{n}.jsonl", texts[n * 100 : (n + 1) * 100]) for n in range(3)]
    source = Source(path=str(tmp_path / "*.jsonl"))
    counting.count(source.shards(), splitter, tmp_path / "work")
    write(paths[1], texts[300:450])
    counted_files.clear()
    with caplog.at_level(logging.WARNING, logger="axolotl"):
        counted = counting.count(source.shards(), splitter, tmp_path / "work")
    assert counted_files == ["1.jsonl"]
    assert "counts of 1 files that have changed" in caplog.text
    now = texts[:100] + texts[300:450] + texts[200:300]
    assert table(counted) == expected([text for text in now if text], splitter)


def test_other_scripts_are_counted_again(counted_files, shards, state, splitter, tmp_path):
    counting.count(shards, splitter, tmp_path)
    counted_files.clear()
    counting.count(shards, PlainWordSplitter(state, ["Hangul", "Greek"]), tmp_path)
    assert len(counted_files) == 6


def test_a_file_named_twice_counts_twice(shards, texts, splitter, tmp_path):
    counted = counting.count([shards[0], shards[0]], splitter, tmp_path)
    assert table(counted) == expected([text for text in texts[:100] * 2 if text], splitter)


def test_merge_within_little_memory_equals_the_whole(shards, right, splitter, tmp_path):
    assert table(counting.count(shards, splitter, tmp_path, memory_mb=100)) == right


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_file_come_through(workers, shards, splitter, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no JSON\n")
    with pytest.raises(EEVEError, match="broken.jsonl, line 1: not a JSON object"):
        counting.count(
            Source(path=str(broken)).shards() + shards, splitter, tmp_path / "work", workers=workers
        )


def test_text_in_another_script_is_an_error(state, shards, tmp_path):
    with pytest.raises(EEVEError, match="no text in Greek or Thai; correct `corpus` or `script`"):
        counting.count(shards, PlainWordSplitter(state, ["Greek", "Thai"]), tmp_path)


def test_an_unknown_script_is_an_error(state):
    with pytest.raises(EEVEError, match="Korean is not a Unicode script"):
        PlainWordSplitter(state, ["Korean"])


def test_a_full_disk_is_an_error_and_leaves_no_half_file(monkeypatch, shards, splitter, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parquet.ParquetWriter, "write_table", full)
    with pytest.raises(EEVEError, match="No space left on device.*work_directory"):
        counting.count(shards, splitter, tmp_path)
    assert not list((tmp_path / "words").glob("[!.]*")) and not list((tmp_path / "marks").iterdir())


def test_a_build_leaves_its_counts_only_if_told(starting_is_cheap, base_tokenizer_directory, texts, tmp_path):
    path = write(tmp_path / "texts.jsonl", texts)

    def built(output: str, **more) -> dict:
        return build(
            TokenizerSettings(
                base=str(base_tokenizer_directory), output=str(tmp_path / output), corpus=[{"path": str(path)}],
                new_tokens=50, min_count=5, intermediate_vocab_size=1500, **more,
            )
        )  # fmt: skip

    one = built("one")
    two = built("two", keep_work=True, work_directory=str(tmp_path / "counts"), workers=2)
    assert one == two
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["counts", "one", "texts.jsonl", "two"]
    for file in filter(Path.is_file, (tmp_path / "one").rglob("*")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
    tokenizer = Tokenizer.from_file(str(tmp_path / "one" / "tokenizer.json"))
    counts = tokens_in(tokenizer, [text for text in texts if text])
    assert one["counts"] == {token: counts[token] for token in one["counts"]}
