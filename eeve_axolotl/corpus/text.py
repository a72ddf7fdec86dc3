"""What a text is made of, for every step of the corpus: its normal form, its words, its lines."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import xxhash
from datatrove.utils.word_tokenizers import WordTokenizer

# Control characters but tab and newline; zero-width characters; the byte-order mark; soft hyphens.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028\u2029\u2060\ufeff\u00ad]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """`text` in NFC, without invisible characters, trailing blanks and runs of empty lines.

    Nothing visible is changed: no case folding, no rewriting of punctuation.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _INVISIBLE.sub("", text)
    return _EMPTY_LINES.sub("\n\n", _TRAILING.sub("", text)).strip()


class BlankSeparatedWords(WordTokenizer):
    """Words as blanks separate them: what datatrove's steps are given instead of a language's own tokenizer.

    Korean eojeol and English words alike need no model this way. Languages written without blanks need
    one: see `datatrove.utils.word_tokenizers`.
    """

    def word_tokenize(self, text: str) -> list[str]:
        """The words of `text`, in order."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Lines stand for sentences."""
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each line in `text`."""
        return [(match.start(), match.end()) for match in re.finditer(r"[^\n]+", text)]


WORDS = BlankSeparatedWords()


def word_hashes(words: list[str]) -> np.ndarray:
    """A uint64 hash of each word."""
    joined = " ".join(words).encode().split(b" ") if words else []
    return np.fromiter(map(xxhash.xxh3_64_intdigest, joined), np.uint64, len(words))


_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses no bit


def n_gram_hashes(word_hashes: np.ndarray, n: int) -> np.ndarray:
    """A hash of each run of `n` words, from the uint64 hashes of the words; empty if there are fewer than `n`."""
    count = max(len(word_hashes) - n + 1, 0)
    hashes = np.zeros(count, np.uint64)
    for offset in range(n):
        hashes = hashes * _BASE + word_hashes[offset : offset + count]
    return hashes ^ (hashes >> np.uint64(29))
