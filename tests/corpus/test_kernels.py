"""Compiled code answers what the libraries and plain Python answer: on texts of many scripts, with all that can go wrong."""

import re
import struct
import unicodedata
from collections import Counter

import numpy as np
import pytest
import regex
import xxhash
from datatrove.data import Document as DatatroveDocument
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupSignature
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.utils.text import TERMINAL_PUNCTUATION, simplify_text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eeve_axolotl.corpus import duplicates as dup
from eeve_axolotl.corpus.filters import FragmentFilter, RepetitionFilter, StopwordFilter, script_share
from eeve_axolotl.corpus.kernels import hashes, passages
from eeve_axolotl.corpus.kernels.characters import simple
from eeve_axolotl.corpus.minhash import MINHASH, Buckets, Signatures
from eeve_axolotl.corpus.text import (
    WORDS,
    n_gram_hashes,
    normalise,
    normalise_again,
    small_points,
    word_hashes,
)
from tests.corpus.conftest import Maker

PARTS = [
    *"가나다 abc ABC İΣσς 日本 ไทย ١٢ 12 ,.،٫ !?…·~ é\u0301 ㄱ ﬃẞ \u1112\u1161\u11ab".split(" "),
    *" \t\n\r\x00\x0b\x1c\x85\u00a0\u200b\u2028\u3000\ufeff\u00ad",
    *("\r\n", "\n\n\n", " \n", "ΟΔΟΣ ", "1.5", "3,4.5", "12월", "a\u200b\u0308", "👨‍👩‍👧", "😀"),
]
texts = st.lists(st.sampled_from(PARTS) | st.characters(codec="utf-8"), max_size=60).map("".join)
many = settings(max_examples=150, deadline=None)


@given(st.binary(min_size=1, max_size=hashes.LONGEST))
@many
def test_a_hash_is_the_one_of_xxhash(key):
    assert hashes.xxh3(np.frombuffer(key, np.uint8), 0, len(key)) == xxhash.xxh3_64_intdigest(key)


def test_a_hash_is_the_one_of_xxhash_for_every_length():
    for size in range(1, hashes.LONGEST + 1):
        key = bytes(n * 37 % 256 for n in range(size + 3))
        assert hashes.xxh3(np.frombuffer(key, np.uint8), 3, size + 3) == xxhash.xxh3_64_intdigest(key[3:])


def plainly_normal(text: str) -> str:
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    invisible = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028\u2029\u2060\ufeff\u00ad]"
    text = re.sub(r"[ \t]+$", "", re.sub(invisible, "", text), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@given(texts)
@example("e\u200b\u0301")
@many
def test_the_normal_form_is_that_of_plain_python(text):
    once = plainly_normal(text)
    assert normalise(text) == once
    assert normalise_again(once) == plainly_normal(once)


@given(texts)
@many
def test_letters_of_a_script_are_those_of_the_library_regex(text):
    for scripts in (("Hangul",), ("Latin", "Greek")):
        own = regex.compile("[" + "".join(rf"\p{{Script={script}}}" for script in scripts) + "]")
        letters = [character for character in text if character.isalpha()]
        of_scripts = sum(own.match(character) is not None for character in letters)
        assert script_share(text, scripts) == (of_scripts / len(letters) if letters else 0.0)


@given(texts)
@example("ΟΔΟΣ. ΟΔΟΣ")
@many
def test_stopwords_are_those_of_plain_python(text):
    one = StopwordFilter(frozenset(["abc", "1.5", "오늘", "οδος"]), ("나", "가나", "bc"), 0.1)
    words = [word.strip(".,!?;:\"'()[]…·~").lower() for word in text.split()]
    words = [word for word in words if word]
    hits = sum(word in one.stopwords or word.endswith(one.endings) for word in words)
    assert one.share(text) == (hits / len(words) if words else 0.0)


@given(texts)
@many
def test_short_and_unfinished_lines_are_those_of_plain_python(text):
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    expected = True
    if len(lines) >= 2:
        short = sum(len(line) <= 3 for line in lines) / len(lines)
        unfinished = sum(line[-1] not in TERMINAL_PUNCTUATION for line in lines) / len(lines)
        expected = not (short > 0.4 and unfinished > 0.4)
    found = FragmentFilter(0.4, short=3, unfinished=0.4, lines=2).filter(DatatroveDocument(text, "1"))
    assert (found is True) == expected


@given(texts)
@many
def test_the_hash_of_a_text_is_that_of_its_small_words(text):
    assert dup.text_hash(text) == xxhash.xxh3_64_intdigest(" ".join(text.lower().split()).encode())


@given(texts, texts)
@many
def test_lines_have_one_hash_if_they_are_equal(text, other):
    lines = [line.strip() for line in f"{text}\n{other}".split("\n")]
    found = dup.line_hashes(f"{text}\n{other}", 2)
    assert len(found) == len({line for line in lines if len(line) >= 2})
    assert (np.diff(found) > 0).all()


def plain_passages(text: str) -> Counter[tuple[int, tuple[str, ...]]]:
    found = Counter()
    for number, line in enumerate(text.lower().split("\n")):
        words = line.split()
        size = min(len(words), dup.LEAK_WORDS)
        for begin in range(len(words) - size + 1 if size >= dup.LEAK_LINE else 0):
            found[number, tuple(words[begin : begin + size])] += 1
    return found


@given(st.lists(st.sampled_from(["a ", "B ", "ΟΔΟΣ ", "나 ", "\n", "c\u3000"]), max_size=120).map("".join))
@many
def test_passages_are_runs_of_words_and_whole_lines(text):
    expected = plain_passages(text)
    found, line = dup._passages(text)
    assert sorted(line.tolist()) == sorted(number for number, _ in expected.elements())
    assert len(np.unique(found)) == len({words for _, words in expected})


def plain_shingles(text: str) -> np.ndarray:
    words = WORDS.word_tokenize(simplify_text(text, MINHASH.norm_config))
    return n_gram_hashes(word_hashes(words), 2)


@given(texts)
@example("1.5.6 ٣٫٤ 3a4,5 ３．４ 12.x 7,,8 9.")
@example("a b " + "x" * 241)
@many
def test_shingles_are_those_of_datatroves_simple_text(text):
    found, long = passages.shingles(small_points(text), simple(), 2)
    if long:
        assert any(
            len(word.encode()) > hashes.LONGEST for word in simplify_text(text, MINHASH.norm_config).split()
        )
    else:
        assert found.tolist() == plain_shingles(text).tolist()


class Plain(MinhashDedupSignature):
    """datatrove's first step as it is, with our hash of a word."""

    def get_shingles(self, text):
        words = WORDS.word_tokenize(simplify_text(text, self.config.norm_config))
        return n_gram_hashes(word_hashes(words), self.config.n_grams).reshape(-1, 1)


@pytest.fixture(scope="module")
def alike() -> list[list[str]]:
    """Documents of three tasks: copies, near-copies, short ones, a word that is too long for compiled code."""
    maker = Maker(5)
    documents = [maker.document(lines=3) for _ in range(60)]
    near = [text.replace(text.split()[7], "다른", 1) for text in documents[:25]]
    odd = ["", "하나 둘", "낱말 " * 9 + "x" * 300, "ΟΔΟΣ İ " * 12, *documents[40:50]]
    return [documents, near + odd + documents[10:15], []]


@pytest.mark.parametrize("size", range(1, 10))
def test_a_signature_is_the_least_modulo_the_prime_where_it_is_next_to_it(size):
    prime = 2**61 - 1
    edges = [prime - 1, prime, prime + 1, 2**62 - 2, 7 * 2**61 + prime - 1, 2**64 - 1, prime - 2, 0, 8]
    rows = np.array(edges + edges[:size], np.uint64)
    a, b = np.array([1, 1, 3, 2**61 - 2], np.uint64), np.array([0, 5, 1, 2**61 - 3], np.uint64)
    for begin in range(len(edges)):
        shingles = rows[begin : begin + size]
        least = [
            min((s * f + d) % 2**64 % prime for s in shingles.tolist())
            for f, d in zip(a.tolist(), b.tolist(), strict=True)
        ]
        assert passages.signature(shingles, a, b).tolist() == least


def test_signatures_and_pairs_are_datatroves_byte_for_byte(alike, tmp_path, monkeypatch):
    monkeypatch.setattr("eeve_axolotl.corpus.minhash._PART", 20)  # several parts
    monkeypatch.setattr("eeve_axolotl.corpus.minhash._AT_A_TIME", 7)
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    for rank, documents in enumerate(alike):
        for step in (
            Signatures(ours / "s", config=MINHASH, language=WORDS),
            Plain(str(plain / "s"), config=MINHASH, language=WORDS),
        ):
            step.run((DatatroveDocument(text, str(n)) for n, text in enumerate(documents)), rank)
    for bucket in range(MINHASH.num_buckets):
        Buckets(ours / "s", ours / "b").run(None, bucket, MINHASH.num_buckets)
        theirs = MinhashDedupBuckets(str(plain / "s"), str(plain / "b"), config=MINHASH)
        theirs.run(None, bucket, MINHASH.num_buckets)

    def files(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    assert files(ours) == files(plain)
    pairs = {
        each for name, raw in files(ours).items() if name[0] == "b" for each in struct.iter_unpack("<4I", raw)
    }
    assert len(pairs) > 30 and len({(one, other) for one, _, other, _ in pairs}) > 1


repeated = st.lists(
    st.sampled_from(
        ["가 나 ", "가나 ", "다 라 마 ", "바\n", "사 아.\n\n", "x", " ", "\n", "\n\n\n", "1 2 3 4 5 6 7 "]
    ),
    min_size=1,
    max_size=200,
).map("".join)


@given(repeated)
@example(" \n ")
@example("\n\na\n\na\n\n")
@settings(max_examples=400, deadline=None)
def test_repetition_is_what_datatroves_rules_say(text):
    document = DatatroveDocument(text, "1")
    found = RepetitionFilter(short=0).filter(document)
    expected = GopherRepetitionFilter(language=WORDS).filter(document)
    # The quick look takes n-grams of other words for other ones, datatrove's rules only those of other letters.
    assert found == expected or (found is True and expected[1].startswith("duplicated"))
