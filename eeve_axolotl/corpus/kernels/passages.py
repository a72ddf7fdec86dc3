"""The words of a text and their hashes: for MinHash signatures, for passages that two texts share, for copies.

points  uint32, the code points of a text
table   uint32 (ALL,): what each character becomes (`characters.small` or `characters.simple`)
"""

from __future__ import annotations

import numpy as np
from numba import njit

from eeve_axolotl.corpus.kernels import hashes as h
from eeve_axolotl.corpus.kernels.characters import CHARACTER, DECIMAL, DIGIT, SEPARATOR, SPECIAL
from eeve_axolotl.tokenizer.kernels.words import write_character

_NEW_LINE, _BLANK, _ZERO = 10, 32, 48
_MERSENNE = np.uint64((1 << 61) - 1)


@njit(nogil=True, cache=True)
def is_special(points, table):
    """Whether the table cannot say what becomes of one of the characters."""
    for point in points:
        if table[point] & SPECIAL:
            return True
    return False


@njit(inline="always")
def _end_of_number(points, table, n):
    """Where a number ends that begins with the digit at `n`: digits, or two runs of them joined by one character."""
    while n < len(points) and table[points[n]] & DIGIT:
        n += 1
    if n + 1 < len(points) and table[points[n]] & DECIMAL and table[points[n + 1]] & DIGIT:
        n += 1
        while n < len(points) and table[points[n]] & DIGIT:
            n += 1
    return n


@njit(nogil=True, cache=True)
def spell(points, table, key):
    """Write the words of a text into `key` in UTF-8, a blank after each, and every number as 0 if the table has digits.

    Args:
        key: uint8, room for 4 bytes of each character and one more.

    Returns where each word ends in `key`, before its blank: int64.
    """
    ends = np.empty(len(points) // 2 + 1, np.int64)
    words, size, begin, n = 0, 0, 0, 0
    while n < len(points):
        kind = table[points[n]]
        if kind & SEPARATOR:
            if size > begin:
                ends[words] = size
                words += 1
                key[size] = _BLANK
                size += 1
                begin = size
            n += 1
        elif kind & DIGIT:
            size = write_character(np.int64(_ZERO), key, size)
            n = _end_of_number(points, table, n)
        else:
            size = write_character(np.int64(kind & CHARACTER), key, size)
            n += 1
    if size > begin:
        ends[words] = size
        words += 1
    return ends[:words]


@njit(nogil=True, cache=True)
def shingles(points, table, n):
    """The hashes (uint64) of all runs of `n` words, as xxhash hashes a word; and whether a word is too long for that."""
    key = np.empty(4 * len(points) + 1, np.uint8)
    ends = spell(points, table, key)
    hashes = np.empty(len(ends), np.uint64)
    begin = 0
    for word in range(len(ends)):
        if ends[word] - begin > h.LONGEST:
            return hashes[:0], True
        hashes[word] = h.xxh3(key, begin, ends[word])
        begin = ends[word] + 1
    runs = np.empty(max(len(ends) - n + 1, 0), np.uint64)
    for word in range(len(runs)):
        runs[word] = h.run(hashes, word, n)
    return runs, False


@njit(inline="always")
def _permuted(shingle, factor, addend):
    """(shingle * factor + addend) modulo 2**61 - 1, the product and the sum modulo 2**64."""
    value = shingle * factor + addend
    value = (value & _MERSENNE) + (value >> np.uint64(61))
    return min(value, value - _MERSENNE)


@njit(nogil=True, cache=True)
def signature(shingles, a, b):
    """MinHash: the least of each permutation of the shingles; all uint64, `a` and `b` one number for each permutation.

    What a permutation is, `_permuted` says.
    """
    least = np.full(len(a), _MERSENNE, np.uint64)
    fours = len(shingles) - len(shingles) % 4  # so many at a time are faster
    for k in range(0, fours, 4):
        one, two, three, four = shingles[k], shingles[k + 1], shingles[k + 2], shingles[k + 3]
        for n in range(len(a)):
            first = min(_permuted(one, a[n], b[n]), _permuted(two, a[n], b[n]))
            second = min(_permuted(three, a[n], b[n]), _permuted(four, a[n], b[n]))
            least[n] = min(least[n], min(first, second))
    for k in range(fours, len(shingles)):
        for n in range(len(a)):
            least[n] = min(least[n], _permuted(shingles[k], a[n], b[n]))
    return least


@njit(inline="always")
def _word(points, table, begin):
    """The hash of the word that begins at `begin`, and where it ends."""
    number, n = np.uint64(0), begin
    while n < len(points) and table[points[n]] & SEPARATOR == 0:
        number = h.with_character(number, table[points[n]])
        n += 1
    return h.spread(number), n


@njit(nogil=True, cache=True)
def passages(points, table, shortest, longest):
    """The hashes (uint64) of all runs of `longest` words within a line, and of whole lines of `shortest` words or more.

    Returns hashes, and the number of the line that each is in (int64).
    """
    found = np.empty(len(points) // 2 + 1, np.uint64)
    at = np.empty(len(found), np.int64)
    words = np.empty(len(found), np.uint64)  # of this line
    many, line, of_line, n = 0, 0, 0, 0
    while n <= len(points):
        if n == len(points) or points[n] == _NEW_LINE:
            size = min(of_line, longest)
            for begin in range(of_line - size + 1 if size >= shortest else 0):
                found[many], at[many] = max(h.run(words, begin, size), np.uint64(1)), line
                many += 1
            line += 1
            of_line = 0
        elif table[points[n]] & SEPARATOR == 0:
            words[of_line], n = _word(points, table, n)
            of_line += 1
            continue
        n += 1
    return found[:many], at[:many]


@njit(nogil=True, cache=True)
def hash_set(hashes):
    """A hash table (uint64) of `hashes`, none of which is 0, for `which_in`: its size is a power of two, 0 is empty."""
    size = 8
    while size < 4 * len(hashes):
        size *= 2
    table = np.zeros(size, np.uint64)
    for number in hashes:
        slot = np.int64(number & np.uint64(size - 1))
        while table[slot] and table[slot] != number:
            slot = (slot + 1) & (size - 1)
        table[slot] = number
    return table


@njit(nogil=True, cache=True)
def which_in(hashes, table):
    """For each of `hashes`, none of which is 0, whether it is in a hash table of `hash_set`: bool."""
    found = np.empty(len(hashes), np.bool_)
    mask = np.uint64(len(table) - 1)
    for n in range(len(hashes)):
        slot = np.int64(hashes[n] & mask)
        while table[slot] and table[slot] != hashes[n]:
            slot = (slot + 1) & (len(table) - 1)
        found[n] = table[slot] != 0
    return found
