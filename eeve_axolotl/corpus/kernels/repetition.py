"""Gopher's rules of repetition, as datatrove's `GopherRepetitionFilter` has them, with hashes in place of strings.

points   uint32, the code points of a text
classes  uint8 (ALL,), the table `characters.classes`
starts, sizes, hashes  of each word: its first character, how many they are (int64), and its hash (uint64)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from eeve_axolotl.corpus.kernels import hashes as h
from eeve_axolotl.corpus.kernels.characters import WHITE

_NEW_LINE = 10
_BASE = np.uint64(0x1B873593CC9E2D51 % ((1 << 61) - 1))

# What `objection` answers: 0 for none, one of these, or TOP or DUPLICATED and the n of the n-gram.
PARAGRAPHS, PARAGRAPH_CHARACTERS, LINES, LINE_CHARACTERS = range(1, 5)
TOP, DUPLICATED = 100, 200


class Shares(NamedTuple):
    """What the rules allow: shares of the text."""

    paragraphs: float
    paragraph_characters: float
    lines: float
    line_characters: float

    top: np.ndarray
    """float64 (n,): of the most frequent n-gram; n-grams of `top_n` words."""

    top_n: np.ndarray
    """int64 (n,)."""

    duplicated: np.ndarray
    """float64 (n,): of all n-grams that repeat; n-grams of `duplicated_n` words."""

    duplicated_n: np.ndarray
    """int64 (n,), ascending."""


@njit(inline="always")
def _table(entries):
    """An empty hash table (uint64) for so many entries."""
    size = 8
    while size < 2 * entries:
        size *= 2
    return np.zeros(size, np.uint64)


@njit(inline="always")
def _slot(table, number):
    """Where a hash is in a table, or would be."""
    slot = np.int64(number & np.uint64(len(table) - 1))
    while table[slot] and table[slot] != number:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@njit(inline="always")
def _is_known(points, begin, end, table):
    """Whether a part of the text is in the table, which has it afterwards."""
    number = np.uint64(0)
    for n in range(begin, end):
        number = h.with_character(number, points[n])
    number = max(h.spread(number), np.uint64(1))
    slot = _slot(table, number)
    known = table[slot] != 0
    table[slot] = number
    return known


@njit(nogil=True, cache=True)
def _repeated_parts(points, begin, end, least):
    """Of the parts between runs of `least` line feeds or more: how many repeat, their characters, how many there are."""
    lines = 1
    for n in range(begin, end):
        lines += points[n] == _NEW_LINE
    table = _table(lines)
    parts, repeated, characters = 0, 0, 0
    start, n = begin, begin
    while n <= end:
        stop = n
        while n < end and points[n] == _NEW_LINE:
            n += 1
        if n - stop >= least or stop == end:
            parts += 1
            if _is_known(points, start, stop, table):
                repeated += 1
                characters += stop - start
            start = n
        if n == stop:
            n += 1
    return repeated, characters, parts


@njit(nogil=True, cache=True)
def _words(points, classes):
    """Starts, sizes and hashes of the words that white space separates."""
    most = len(points) // 2 + 1
    starts, sizes, hashes = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.uint64)
    words, n = 0, 0
    while n < len(points):
        if classes[points[n]] & WHITE:
            n += 1
            continue
        starts[words] = n
        number = np.uint64(0)
        while n < len(points) and classes[points[n]] & WHITE == 0:
            number = h.with_character(number, points[n])
            n += 1
        sizes[words] = n - starts[words]
        hashes[words] = h.spread(number)
        words += 1
    return starts[:words], sizes[:words], hashes[:words]


@njit(inline="always")
def _runs(hashes, n):
    """The hashes of all runs of `n` words, none of them 0."""
    runs = np.empty(max(len(hashes) - n + 1, 0), np.uint64)
    for word in range(len(runs)):
        runs[word] = max(h.run(hashes, word, n), np.uint64(1))
    return runs


@njit(inline="always")
def _size(sizes, begin, n):
    """The characters of `n` words from `begin` on."""
    size = 0
    for word in range(begin, begin + n):
        size += sizes[word]
    return size


@njit(inline="always")
def _counted(runs):
    """A hash table of runs of words, and how often each is there (int64, a number for each slot)."""
    table = _table(len(runs))
    times = np.zeros(len(table), np.int64)
    for number in runs:
        slot = _slot(table, number)
        table[slot] = number
        times[slot] += 1
    return table, times


@njit(nogil=True, cache=True)
def _top(sizes, hashes, n):
    """The characters of all places of an n-gram, with blanks: of the n-gram that has most, and of the most frequent one.

    Of several that are most frequent, the one that comes first.
    """
    runs = _runs(hashes, n)
    table, times = _counted(runs)
    largest, most, of_most = 0, 0, 0
    for word in range(len(runs)):
        often = times[_slot(table, runs[word])]
        characters = often * (_size(sizes, word, n) + n - 1)
        largest = max(largest, characters)
        if often > most:
            most, of_most = often, characters
    return largest, of_most


@njit(nogil=True, cache=True)
def _often(hashes):
    """How often the text has each of its words: int64."""
    words = _runs(hashes, 1)
    table, times = _counted(words)
    often = np.empty(len(words), np.int64)
    for word in range(len(words)):
        often[word] = times[_slot(table, words[word])]
    return often


@njit(nogil=True, cache=True)
def _at_most(sizes, often, n):
    """A bound for the first number of `_top`: an n-gram is no more frequent than the rarest of its words."""
    largest = 0
    for word in range(len(sizes) - n + 1):
        rarest = often[word]
        for k in range(word + 1, word + n):
            rarest = min(rarest, often[k])
        largest = max(largest, rarest * (_size(sizes, word, n) + n - 1))
    return largest


@njit(nogil=True, cache=True)
def _covered(sizes, hashes, n):
    """The characters of all words that are in an n-gram which occurs more than once."""
    runs = _runs(hashes, n)
    table, times = _counted(runs)
    covered, characters = 0, 0  # the words before `covered` are done with
    for word in range(len(runs)):
        if times[_slot(table, runs[word])] > 1:
            for n_th in range(max(covered, word), word + n):
                characters += sizes[n_th]
            covered = word + n
    return characters


@njit(nogil=True, cache=True)
def _prefixes(points, starts, sizes):
    """Hashes modulo 2**61 - 1 of the first words of a text without blanks between them, and the powers of their base."""
    prefixes = np.zeros(len(starts) + 1, np.uint64)
    powers = np.ones(np.sum(sizes) + 1, np.uint64)
    number, size = np.uint64(0), 0
    for word in range(len(starts)):
        for n in range(starts[word], starts[word] + sizes[word]):
            number = h.below(h.times(number, _BASE) + np.uint64(points[n]) + np.uint64(1))
            size += 1
            powers[size] = h.times(powers[size - 1], _BASE)
        prefixes[word + 1] = number
    return prefixes, powers


@njit(nogil=True, cache=True)
def _duplicated(sizes, prefixes, powers, n):
    """The characters of n-grams that an earlier one repeats, each word counted once; blanks make no difference."""
    table = _table(len(sizes))
    mersenne = np.uint64((1 << 61) - 1)
    word, characters = 0, 0
    while word < len(sizes) - n + 1:
        size = _size(sizes, word, n)
        without = h.times(prefixes[word], powers[size])
        number = h.below(prefixes[word + n] + (mersenne - without)) + np.uint64(1)
        slot = _slot(table, number)
        if table[slot]:
            characters += size
            word += n
        else:
            table[slot] = number
            word += 1
    return characters


@njit(nogil=True, cache=True)
def objection(
    points,
    classes,
    short,
    paragraphs,
    paragraph_characters,
    lines,
    line_characters,
    top,
    top_n,
    duplicated,
    duplicated_n,
):
    """Which rule a text breaks first, as above; 0 for none. A text of fewer than `short` words has no rules of TOP.

    The last eight arguments are the `Shares`: a named tuple takes numba longer to read than a document.

    A quick look tells whether a rule of n-grams may apply, before they are computed.
    """
    size = len(points)
    begin, end = 0, size
    while end and classes[points[end - 1]] & WHITE:
        end -= 1
    while begin < end and classes[points[begin]] & WHITE:
        begin += 1
    repeated, characters, parts = _repeated_parts(points, begin, end, 2)
    if repeated / parts > paragraphs:
        return PARAGRAPHS
    if characters / size > paragraph_characters:
        return PARAGRAPH_CHARACTERS
    repeated, characters, parts = _repeated_parts(points, 0, size, 1)
    if repeated / parts > lines:
        return LINES
    if characters / size > line_characters:
        return LINE_CHARACTERS
    starts, sizes, hashes = _words(points, classes)
    may = False
    found = 0
    if len(sizes) >= short:
        often = _often(hashes)
        for k in range(len(top)):
            if _at_most(sizes, often, top_n[k]) > top[k] * size:
                largest, of_most = _top(sizes, hashes, top_n[k])
                may = may or largest > top[k] * size
                if found == 0 and of_most / size > top[k]:
                    found = TOP + top_n[k]
    if found:
        return found
    shortest = duplicated_n[0]
    if not may:
        may = len(sizes) > shortest and _covered(sizes, hashes, shortest) > duplicated.min() * size
    if may:
        prefixes, powers = _prefixes(points, starts, sizes)
        for k in range(len(duplicated)):
            if _duplicated(sizes, prefixes, powers, duplicated_n[k]) / size > duplicated[k]:
                return DUPLICATED + duplicated_n[k]
    return 0
