"""The tokens of a text, counted by its words: a word's tokens are found by a BPE's merges once, and then remembered.

No merge crosses the place between two characters of which no merge has the first at the end of its left half and the second
at the beginning of its right one. So a text may be cut there, and what stands left and right is tokenized independently.

    points   uint32, the code points of a text
    symbols  int32 (0x110000,), the token of each character, NONE for one that has none, BREAK for one that only separates
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from eeve_axolotl.corpus.kernels import hashes as h
from eeve_axolotl.tokenizer.kernels.merges import merge

NONE, BREAK = -1, -2
LONGEST = 400
"""Characters of a word, at most: merging takes time that grows with their square."""

TIED = 1 << 23
"""Bits of the table of characters that a merge may join: small enough to stay in the processor's cache."""

_SEED = np.uint64(0xA0761D6478BD642F)


class Bpe(NamedTuple):
    """A BPE's vocabulary and merges, and where a text may be cut."""

    symbols: np.ndarray
    """As above."""

    keys: np.ndarray
    """int64 (slots,), a hash table of the merges: left << 32 | right, -1 in an empty slot."""

    values: np.ndarray
    """int32 (slots, 2): the merge's rank, and the token that it makes."""

    active: np.ndarray
    """bool (ids,): which tokens a merge may make. All of them."""

    made: np.ndarray
    """int64 (merges,), where `merge` would count how often each was made. Nobody asks here."""

    tied: np.ndarray
    """uint8 (TIED / 8,): a bit for each hash of two characters, set where a merge may join such two.

    Others may have the same hash: they are then left together too, which changes no token. Empty where words come cut
    already.
    """

    first_new: int
    """Tokens from this one on are new."""


class Memo(NamedTuple):
    """The tokens of words that were met before: a hash table whose size is a power of two."""

    rows: np.ndarray
    """uint64 (slots, 4): two hashes of the word, both 0 in an empty slot; what it has; two new tokens.

    What it has is the number of its tokens | that of the new ones << 16 | where these are in `new` << 32. Of at most
    two, the last number says which they are, each in 32 bits: one look into memory finds all of nearly every word.
    """

    new: np.ndarray
    """int32: the new tokens of words that have more than two, counted from 0."""

    used: np.ndarray
    """int64 (2,): how many slots are in use, and how much of `new`."""


@njit(inline="always")
def _hashes(word, size):
    one, other = np.uint64(0), _SEED
    for k in range(size):
        one = h.with_character(one, word[k])
        other = (other ^ np.uint64(word[k])) * np.uint64(0xE7037ED1A0B428DB)
        other ^= other >> np.uint64(32)
    return h.spread(one), max(other, np.uint64(1))


@njit(inline="always")
def _slot(one, other, rows):
    """Where a word is in the table, or would be."""
    slot = np.int64(one & np.uint64(len(rows) - 1))
    while rows[slot, 1] and (rows[slot, 0] != one or rows[slot, 1] != other):
        slot = (slot + 1) & (len(rows) - 1)
    return slot


@njit(nogil=True, cache=True)
def remember(word, tokens, first_new, rows, new, used):
    """Put a word of symbols (int32) with its tokens (int32) into the `Memo`, which has room for it; returns its slot."""
    one, other = _hashes(word, len(word))
    slot = _slot(one, other, rows)
    begin = used[1]
    many, few = 0, np.uint64(0)
    for token in tokens:
        if token >= first_new:
            new[begin + many] = token - first_new
            few |= np.uint64(token - first_new) << np.uint64(32 * min(many, 1))
            many += 1
    has = np.uint64(len(tokens)) | np.uint64(many) << np.uint64(16) | np.uint64(begin) << np.uint64(32)
    rows[slot, 0], rows[slot, 1], rows[slot, 2], rows[slot, 3] = one, other, has, few
    used[0] += 1
    if many > 2:
        used[1] = begin + many
    return slot


@njit(inline="always")
def _find(token, times, found):
    """Note that a new token was found once more."""
    if times[token] == 0:
        found[found[-1]] = token
        found[-1] += 1
    times[token] += 1


@njit(inline="always")
def _pair(first, second):
    """The hash of two symbols: which bit of TIED is theirs."""
    number = (np.uint64(first) << np.uint64(32) | np.uint64(second)) * _SEED
    return number >> np.uint64(41)


@njit(cache=True)
def tie(first, second):
    """The table of characters that a merge may join, from two arrays of symbols (int32): the first ones and the second."""
    tied = np.zeros(TIED // 8, np.uint8)
    for n in range(len(first)):
        bit = _pair(first[n], second[n])
        tied[bit >> np.uint64(3)] |= np.uint8(1 << (bit & np.uint64(7)))
    return tied


@njit(nogil=True, cache=True)
def _cut(points, symbols, tied):
    """The symbol of each character (int32), and where a word may begin or end (bool, one more): without a branch.

    A processor that guesses wrong whether a word ends loses more time than all of this takes.
    """
    own = np.empty(len(points), np.int32)
    for n in range(len(points)):
        own[n] = symbols[points[n]]
    cut = np.ones(len(points) + 1, np.bool_)
    if len(tied) == 0:
        for n in range(1, len(points)):
            cut[n] = (own[n - 1] < 0) | (own[n] < 0)
        return own, cut
    for n in range(1, len(points)):
        bit = _pair(own[n - 1], own[n])
        is_tied = tied[bit >> np.uint64(3)] >> (bit & np.uint64(7)) & 1
        cut[n] = (is_tied == 0) | (own[n - 1] < 0) | (own[n] < 0)
    return own, cut


@njit(nogil=True, cache=True)
def count(points, times, found, symbols, merges, makes, active, made, tied, first_new, rows, new, used):
    """Count the tokens of a text, and add its new tokens to those that were found before.

    Args:
        times: int32 (new tokens,), how often each was found.
        found: int32 (new tokens + 1,), those found so far; the last element says how many they are.
        symbols, merges, makes, active, made, tied, first_new: a `Bpe`.
        rows, new, used: a `Memo`. (Named tuples themselves take numba longer to read than a document.)

    Returns how many tokens there are and at which character it stopped: before the end where the memo has no room; or
    -1 and the character where a word begins that is too long.
    """
    tokens, ranks = np.empty(LONGEST, np.int32), np.empty(LONGEST, np.int32)
    own, cut = _cut(points, symbols, tied)
    total, n = np.int64(0), 0
    while n < len(points):
        if own[n] < 0:
            if own[n] == NONE:
                total += _bytes(points[n])
            n += 1
            continue
        end = n + 1
        while not cut[end]:
            end += 1
        size = end - n
        if size >= LONGEST:
            return -1, n
        word = own[n:end]
        one, other = _hashes(word, size)
        slot = _slot(one, other, rows)
        if rows[slot, 1] == 0:
            if used[0] >= len(rows) // 2 or used[1] + LONGEST > len(new):
                return total, n
            tokens[:size] = word
            left = merge(tokens, ranks, size, merges, makes, active, 0, made)
            slot = remember(word, tokens[:left], first_new, rows, new, used)
        n = end
        has = rows[slot, 2]
        total += np.int64(has & np.uint64(0xFFFF))
        many = np.int64(has >> np.uint64(16) & np.uint64(0xFFFF))
        if many > 2:
            begin = np.int64(has >> np.uint64(32))
            for k in range(begin, begin + many):
                _find(new[k], times, found)
        elif many:
            few = rows[slot, 3]
            _find(np.int64(few & np.uint64(0xFFFFFFFF)), times, found)
            if many == 2:
                _find(np.int64(few >> np.uint64(32)), times, found)
    return total, n


@njit(inline="always")
def _bytes(point):
    """How many bytes a character has in UTF-8."""
    return 1 + (point >= 0x80) + (point >= 0x800) + (point >= 0x10000)


@njit(nogil=True, cache=True)
def take(times, found):
    """The new tokens that were found, ascending, and how often each was: two int32 arrays. Both are emptied."""
    new = np.sort(found[: found[-1]])
    often = np.empty(len(new), np.int32)
    for n in range(len(new)):
        often[n] = times[new[n]]
        times[new[n]] = 0
    found[-1] = 0
    return new, often
