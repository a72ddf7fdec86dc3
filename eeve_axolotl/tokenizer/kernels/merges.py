"""Words cut into tokens by a table of merges, as a BPE does it, and counted.

A token is its id: base tokens first, then candidates. A merge is its rank: its place in the order of all merges.

    left, right, makes  int64 (merges,), the two halves of each merge and what it makes
    active              bool (tokens,), false for what is not in the vocabulary now
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

_NEVER = np.iinfo(np.int32).max
_FALLBACK = -8  # -8 - n stands for a character outside the vocabulary, of n bytes


class Vocabulary(NamedTuple):
    """Tokens and merges, as a word's characters are looked up in them."""

    characters: np.ndarray
    """int32 (0x110000,): the token of each code point, -1 for none."""

    keys: np.ndarray
    """int64 (slots,), a hash table whose size is a power of two: left << 32 | right, -1 in an empty slot."""

    values: np.ndarray
    """int32 (slots, 2): the merge, and the token that it makes."""


class Words(NamedTuple):
    """Some rows of a table of words."""

    text: np.ndarray
    """uint8: the words in UTF-8."""

    ends: np.ndarray
    """int32 (words + 1,): where each word ends in `text`, after where the first begins."""

    whole: np.ndarray
    """int32 (words,): the token that a word is before any merge, -1 for none; empty if there is none at all."""

    counts: np.ndarray
    """int64 (words,): how often each occurs."""

    documents: np.ndarray
    """int64 (words,): how many documents have it."""

    first_row: int
    """The row of the first word in the table."""


class Sums(NamedTuple):
    """What the words have been cut into so far: int64, one number for each token, or for each merge."""

    counts: np.ndarray
    """How often the token occurs."""

    documents: np.ndarray
    """In how many documents, at most: one with two words that have the token counts twice."""

    offers: np.ndarray
    """How often two tokens stand side by side that would make it. Of a character how often it stands alone."""

    most: np.ndarray
    """The count of the most frequent word that has it, -1 for none."""

    row: np.ndarray
    """The row of that word, the first of several; -1 for none."""

    merged: np.ndarray
    """How often each merge was made."""


def vocabulary(characters: np.ndarray, pairs: dict[tuple[int, int], tuple[int, int]]) -> Vocabulary:
    """A vocabulary from its `characters` and, for each pair of tokens that merge, (merge, the token it makes)."""
    size = 1 << (4 * len(pairs) + 4).bit_length()
    keys = np.full(size, -1, dtype=np.int64)
    values = np.zeros((size, 2), dtype=np.int32)
    if pairs:
        flat = np.array([left << 32 | right for left, right in pairs], dtype=np.int64)
        _fill(keys, values, flat, np.array(list(pairs.values()), dtype=np.int32))
    return Vocabulary(characters, keys, values)


@njit(cache=True)
def _fill(keys, values, pairs, what):
    for n in range(len(pairs)):
        slot = _slot(pairs[n], len(keys))
        while keys[slot] >= 0:
            slot = (slot + 1) & (len(keys) - 1)
        keys[slot] = pairs[n]
        values[slot] = what[n]


@njit(inline="always")
def _slot(key, size):
    value = key * np.int64(-7046029254386353131)
    return (value ^ value >> 29) & (size - 1)


@njit(nogil=True, cache=True)
def find(left, right, keys):
    """The slot of the merge of two tokens, -1 if there is none."""
    if left < 0 or right < 0:
        return -1
    key = np.int64(left) << 32 | np.int64(right)
    slot = _slot(key, len(keys))
    while keys[slot] != key:
        if keys[slot] < 0:
            return -1
        slot = (slot + 1) & (len(keys) - 1)
    return slot


@njit(nogil=True, cache=True)
def _rank(left, right, keys, values, active):
    """The merge of two tokens, _NEVER if there is none or what it makes is not active."""
    slot = find(left, right, keys)
    return values[slot, 0] if slot >= 0 and active[values[slot, 1]] else _NEVER


@njit(nogil=True, cache=True)
def cut(words, vocabulary, active, sums, scratch):
    """Cut each word into tokens and add them to `sums`.

    Args:
        words: `Words`.
        vocabulary: `Vocabulary`.
        active: bool (tokens,).
        sums: `Sums`.
        scratch: int32 (2, characters of the longest word or more), overwritten.

    Returns how many tokens are single bytes: those of characters that no active token is.
    """
    # Taken out of the named tuples once: an access in the loop would count a reference each time.
    text, ends, whole, counts, documents, first_row = words
    characters, keys, values = vocabulary
    of_token, documents_of_token, offers, most, row, merged = sums
    tokens, ranks = scratch[0], scratch[1]  # the word's tokens, the merge of each with the next
    fallback = 0
    for word in range(len(counts)):
        n = 0
        i = ends[word]
        if len(whole) and whole[word] >= 0:
            tokens[0] = whole[word]
            n = 1
            i = ends[word + 1]
        while i < ends[word + 1]:
            code, length = _character(text, i)
            i += length
            token = characters[code]
            if token < 0 or not active[token]:
                if token >= 0:
                    offers[token] += counts[word]
                token = _FALLBACK - length
            tokens[n] = token
            n += 1
        n = merge(tokens, ranks, n, keys, values, active, counts[word], merged)
        for k in range(n):
            token = tokens[k]
            if token < 0:
                fallback += (_FALLBACK - token) * counts[word]
                continue
            of_token[token] += counts[word]
            if not _is_before(tokens, k):
                documents_of_token[token] += documents[word]
            if counts[word] > most[token]:
                most[token], row[token] = counts[word], first_row + word
            if k + 1 < n:
                slot = find(token, tokens[k + 1], keys)
                if slot >= 0:
                    offers[values[slot, 1]] += counts[word]
    return fallback


@njit(inline="always")
def _is_before(tokens, k):
    """Whether token `k` of a word is one of those before it, too."""
    found = False
    for before in range(k):
        found = found or tokens[before] == tokens[k]
    return found


@njit(inline="always")
def _character(text, i):
    """The code point that begins at byte `i`, and its bytes."""
    lead = np.int64(text[i])
    length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    code = lead if length == 1 else lead & (0x7F >> length)
    for k in range(1, length):
        code = code << 6 | (text[i + k] & 0x3F)
    return code, length


@njit(inline="always")
def merge(tokens, ranks, n, keys, values, active, count, merged):
    """Merge a word's first `n` tokens, the lowest merge first and of equals the leftmost, until none is left.

    Args:
        tokens, ranks: int32, the word's tokens, which are merged in place, and room for as many ranks.
        keys, values, active: as `cut` has them.
        count: added to `merged` (int64, one number a merge) for each merge that is made.

    Returns how many tokens there are.
    """
    for k in range(n - 1):
        ranks[k] = _rank(tokens[k], tokens[k + 1], keys, values, active)
    while n > 1:
        at, lowest = 0, _NEVER
        for k in range(n - 1):
            if ranks[k] < lowest:
                at, lowest = k, ranks[k]
        if lowest == _NEVER:
            break
        merged[lowest] += count
        tokens[at] = values[find(tokens[at], tokens[at + 1], keys), 1]
        n -= 1
        for k in range(at + 1, n):
            tokens[k] = tokens[k + 1]
            ranks[k] = ranks[k + 1]
        if at:
            ranks[at - 1] = _rank(tokens[at - 1], tokens[at], keys, values, active)
        if at < n - 1:
            ranks[at] = _rank(tokens[at], tokens[at + 1], keys, values, active)
    return n


class Merges(NamedTuple):
    """All merges, and for each token those that it is a half of."""

    left: np.ndarray
    """int64 (merges,): the first half of each."""

    right: np.ndarray
    """int64 (merges,): the second half."""

    makes: np.ndarray
    """int64 (merges,): the token that it makes."""

    uses: np.ndarray
    """int64 (2 * merges,): the merges of each token, one token after the other."""

    begins: np.ndarray
    """int64 (tokens + 1,): where a token's merges begin in `uses`, and the last one's end."""


def merges(left: np.ndarray, right: np.ndarray, makes: np.ndarray, tokens: int) -> Merges:
    """The merges of so many tokens from their halves and what they make, all int64 (merges,)."""
    halves = np.concatenate([left, right])
    uses = np.argsort(halves, kind="stable") % max(1, len(makes))
    return Merges(left, right, makes, uses, np.searchsorted(np.sort(halves), np.arange(tokens + 1)))


@njit(cache=True)
def take(order, most, limit, made, active, ways, merges, taken):
    """Take the first tokens of `order` that can be dropped together, `most` of them at most.

    One is passed over where those before it leave it as the last way to make what was made more than `limit` times.

    Args:
        order: int64 (n,), tokens.
        made: int64 (tokens,), how often each was made.
        active: bool (tokens,); false afterwards for what was taken.
        ways: int64 (tokens,), how many merges make each; changed.
        merges: `Merges`.
        taken: bool (n,), all false; true afterwards for what was taken.
    """
    alone = ways == 1
    number = 0
    for k in range(len(order)):
        if number == most:
            break
        token = order[k]
        cost = 0
        for at in range(merges.begins[token], merges.begins[token + 1]):
            merge = merges.uses[at]
            target = merges.makes[merge]
            if active[merges.left[merge]] and active[merges.right[merge]] and active[target]:
                if ways[target] == 1 and not alone[target]:
                    cost += made[target]
        if cost > limit:
            continue
        taken[k] = True
        number += 1
        for at in range(merges.begins[token], merges.begins[token + 1]):
            merge = merges.uses[at]
            if active[merges.left[merge]] and active[merges.right[merge]] and active[merges.makes[merge]]:
                ways[merges.makes[merge]] -= 1
        active[token] = False
