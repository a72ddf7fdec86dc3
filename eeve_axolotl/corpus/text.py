"""What a text is made of, for every step of the corpus: its normal form, its words, its lines."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import xxhash
from datatrove.utils.word_tokenizers import WordTokenizer

from eeve_axolotl.corpus.kernels.characters import classes, points, small, text_of
from eeve_axolotl.corpus.kernels.cleaning import clean
from eeve_axolotl.corpus.kernels.passages import is_special


def normalise(text: str) -> str:
    """`text` in NFC, without invisible characters, trailing blanks and runs of empty lines.

    Nothing visible is changed: no case folding, no rewriting of punctuation.
    """
    text = unicodedata.normalize("NFC", text)
    characters = points(text)
    cleaned = np.empty(len(characters), np.uint32)
    begin, end, changed = clean(characters, classes(), cleaned)
    return text_of(cleaned[begin:end]) if changed else text


def normalise_again(text: str) -> str:
    """What `normalise` makes of a text that it made: another only where taking a character away joined two others."""
    return text if unicodedata.is_normalized("NFC", text) else normalise(text)


def small_points(text: str) -> np.ndarray:
    """The code points of `text`, in small letters where `characters.small` cannot say what these are."""
    characters = points(text)
    return points(text.lower()) if is_special(characters, small()) else characters


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
