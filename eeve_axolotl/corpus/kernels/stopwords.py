"""How many words of a text are stopwords, or end like one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numba import njit

from eeve_axolotl.corpus.kernels import hashes as h
from eeve_axolotl.corpus.kernels.characters import AROUND, CHARACTER, WHITE, points
from eeve_axolotl.corpus.kernels.passages import hash_set


class Wanted(NamedTuple):
    """What counts as a stopword: hash tables (uint64) of `hash_set`."""

    words: np.ndarray
    endings: np.ndarray

    lengths: np.ndarray
    """int64: how many characters the endings have, each length once."""


def wanted(words: Iterable[str], endings: Iterable[str]) -> Wanted:
    """The tables of some words and endings in small letters."""
    texts = list(endings)
    lengths = np.array(sorted({len(ending) for ending in texts}), np.int64)
    return Wanted(_table(words), _table(texts), lengths)


def _table(texts: Iterable[str]) -> np.ndarray:
    found = [_hash(characters, 0, len(characters)) for characters in map(points, texts)]
    table: np.ndarray = hash_set(np.array(found, np.uint64))
    return table


@njit(nogil=True, cache=True)
def _hash(characters, begin, end):
    number = np.uint64(0)
    for n in range(begin, end):
        number = h.with_character(number, characters[n])
    return max(h.spread(number), np.uint64(1))


@njit(inline="always")
def _is_in(number, table):
    slot = np.int64(number & np.uint64(len(table) - 1))
    while table[slot] and table[slot] != number:
        slot = (slot + 1) & (len(table) - 1)
    return table[slot] != 0


@njit(nogil=True, cache=True)
def count(points, classes, small, wanted, endings, lengths):
    """How many words there are without the punctuation around them, and how many of these are wanted.

    Args:
        points: uint32, the code points of a text, none of them special in `small`.
        classes: the table `characters.classes`.
        small: the table `characters.small`.
        wanted, endings, lengths: `Wanted`. (A named tuple takes numba longer to read than a document.)
    """
    words, found, n = 0, 0, 0
    word = np.empty(len(points), np.uint32)
    while n < len(points):
        if classes[points[n]] & WHITE:
            n += 1
            continue
        begin = n
        while n < len(points) and classes[points[n]] & WHITE == 0:
            n += 1
        end = n
        while end > begin and classes[points[end - 1]] & AROUND:
            end -= 1
        while begin < end and classes[points[begin]] & AROUND:
            begin += 1
        if begin == end:
            continue
        for k in range(begin, end):
            word[k] = small[points[k]] & CHARACTER
        words += 1
        hit = _is_in(_hash(word, begin, end), wanted)
        for length in lengths:
            if hit:
                break
            hit = end - begin >= length and _is_in(_hash(word, end - length, end), endings)
        found += hit
    return words, found
