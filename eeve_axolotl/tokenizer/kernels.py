"""The tally's compiled code: words found in text, counted in a hash table, sorted and spelled.

Text is an array of code points. A word's characters are numbered by an `Alphabet`, in few bits and in their
order, so that several make one number and words sort as these numbers do. An entry of the table is four numbers.
Of a short word, as nearly all are, two are the word itself, so that to find it is one look into memory; a longer
one lies in the arena, beside the table.

An index is `np.uintp` where time is spent: of other numbers numba asks whether they count from the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

SECTION = 1 << 18
"""A longer document counts as several, each of so many characters: memory is bounded by words, not by documents."""

DONE, FULL, LONG = range(3)
"""How `count` ends: the text is counted; the table has no room for a section; the arena none for a word."""


class Alphabet(NamedTuple):
    """The characters that words consist of, numbered from 1 in the order of code points: symbols."""

    characters: np.ndarray
    """The code point of each symbol; the first stands for none."""

    symbols: np.ndarray
    """The symbol of each code point, 0 for one that is in no word."""

    boundary: int
    """The symbol with which words begin: it is in them before all others. -1 if there is none such."""

    bits: int
    """How many a symbol has."""

    each: int
    """How many symbols make a number, the first the highest, with zeros where a word has no more."""


def alphabet(characters: np.ndarray, boundary: int | None = None, written: int | None = None) -> Alphabet:
    """The alphabet of these code points (sorted).

    Args:
        boundary: the one with which words begin.
        written: what stands for it in the text.
    """
    kind = np.uint16 if len(characters) < 1 << 16 else np.uint32
    symbols = np.zeros(0x110000, dtype=kind)
    symbols[characters] = np.arange(1, len(characters) + 1)
    if written is not None:
        symbols[written] = symbols[boundary]
    bits = len(characters).bit_length()
    first = -1 if boundary is None else int(symbols[boundary])
    return Alphabet(np.append(0, characters).astype(np.uint32), symbols, first, bits, 63 // bits)


# Columns of an entry. A short word is one number, or two. A long one has a hash without its last symbol, and its
# place in the arena + 1: no short one looks like it. SEEN is documents << 32 | the section it was last seen in.
# In the arena a 0 follows each word.
_KEY, _REST, COUNT, SEEN = range(4)
_AHEAD, _SLOT = 128, 4  # words found before they are looked up, and the column of where each may be


@njit(nogil=True, cache=True)
def utf8_size(text):
    """How many bytes the text has in UTF-8."""
    size = len(text)
    for begin in range(0, len(text), SECTION):
        more = np.uint32(0)  # many of these are added at once
        for character in text[begin : begin + SECTION]:
            more += np.uint32(character >= 0x80)
            more += np.uint32(character >= 0x800)
            more += np.uint32(character >= 0x10000)
        size += more
    return size


@njit(nogil=True, cache=True)
def count(text, ends, alphabet, state, table, room, arena):
    """Count words from where `state` says until the text ends or there is no room for another section.

    `ends` are those of documents, the last characters of which are in no word.
    """
    i, document, section, begun, words, used, _ = state
    found = np.empty((_AHEAD, 5), dtype=np.int64)
    outcome = DONE
    while i < ends[-1]:
        if i == ends[document]:
            document += 1
            begun = i - SECTION
        end = ends[document]
        if i - begun >= SECTION:  # a new document or section: is there room for all its words?
            ahead = min(SECTION, end - i)
            if words + ahead // 2 + 1 > room or used + 2 * ahead > len(arena):
                state[6] = words + ahead // 2 + 1
                outcome = FULL
                break
            section += 1
            begun = i
        i, many = _find(text, i, min(begun + SECTION, end), alphabet, len(table), found)
        # Entries lie far apart: a look at all of them first, as memory answers many questions in the time of one.
        touched = np.int64(0)
        for n in range(many):
            touched |= table[found[n, _SLOT], COUNT]
        state[6] = touched  # so that no compiler leaves it out
        for n in range(many):
            start, size, key, rest, slot = found[n]
            long = _is_long(key, rest, alphabet)
            while table[np.uintp(slot), COUNT]:
                if table[np.uintp(slot), _KEY] == key:
                    if long:
                        place = _place(table, slot, alphabet)
                        if place >= 0 and _same(text, start, size, arena, place, alphabet):
                            break
                    elif table[np.uintp(slot), _REST] == rest:
                        break
                slot += 1
                if slot == len(table):
                    slot = 0
            if table[np.uintp(slot), COUNT] == 0:
                if long:
                    if used + size + 1 > len(arena):
                        i = start
                        outcome = LONG
                        break
                    rest = used + 1
                    for k in range(size):
                        arena[used + k] = alphabet.symbols[text[start + k]]
                    arena[used + size] = 0
                    used += size + 1
                table[np.uintp(slot), _KEY], table[np.uintp(slot), _REST] = key, rest
                words += 1
            table[np.uintp(slot), COUNT] += 1
            seen = table[np.uintp(slot), SEEN]
            table[np.uintp(slot), SEEN] = (seen >> 32) + (seen & 0xFFFFFFFF != section) << 32 | section
        if outcome == LONG:
            break
    state[0], state[1], state[2], state[3], state[4], state[5] = i, document, section, begun, words, used
    return outcome


@njit(inline="always")
def _find(text, i, stop, alphabet, slots, found):
    """The words that begin from character `i` on and before `stop`, `_AHEAD` at most; returns where it stopped."""
    symbols, boundary, each = alphabet.symbols, alphabet.boundary, alphabet.each
    many = 0
    while i < stop and many < _AHEAD:
        symbol = _symbol(text, i, symbols)
        if symbol == 0:
            i += 1
            continue
        start = i
        word = np.int64(0), np.int64(0), each
        while symbol == boundary:
            word = _with(symbol, word, alphabet)
            i += 1
            symbol = _symbol(text, i, symbols)
        if symbol == 0:
            continue
        while symbol != 0 and symbol != boundary:
            word = _with(symbol, word, alphabet)
            i += 1
            symbol = _symbol(text, i, symbols)
        size = i - start
        key, rest, left = word
        rest <<= alphabet.bits * left
        if size <= each:
            key, rest = rest, key
        if size > 2 * each:
            key = np.int64(0)
            for k in range(start, i):  # FNV-1a
                key = (key ^ _symbol(text, k, symbols)) * np.int64(1099511628211)
            key = key >> alphabet.bits << alphabet.bits
            rest = np.int64(-1)  # it has no place in the arena yet
        found[many, 0], found[many, 1], found[many, 2], found[many, 3] = start, size, key, rest
        found[many, _SLOT] = _slot(key, rest, alphabet, slots)
        many += 1
    return i, many


@njit(inline="always")
def _symbol(text, i, symbols):
    return np.int64(symbols[np.uintp(text[np.uintp(i)])])


@njit(inline="always")
def _with(symbol, word, alphabet):
    """A word (the number before the last, the last number, and how many symbols that has room for) and a symbol."""
    before, last, left = word
    if left == 0:
        before, last, left = last, np.int64(0), alphabet.each
    return before, last << alphabet.bits | symbol, left - 1


@njit(inline="always")
def _is_long(key, rest, alphabet):
    """Whether these are of a long word: a short one without the last symbol of its key has no rest."""
    return key & (1 << alphabet.bits) - 1 == 0 and rest != 0


@njit(inline="always")
def _slot(key, rest, alphabet, size):
    if _is_long(key, rest, alphabet):
        rest = np.int64(0)
    value = (key ^ rest * np.int64(-7046029254386353131)) * np.int64(-4417276706812531889)
    return ((value >> 32 & 0xFFFFFFFF) * size) >> 32


@njit(nogil=True, cache=True)
def _same(text, start, size, arena, at, alphabet):
    for k in range(size):
        if arena[at + k] != alphabet.symbols[text[start + k]]:
            return False
    return arena[at + size] == 0


@njit(inline="always")
def _place(table, entry, alphabet):
    """Where an entry's word is in the arena, -1 for a short one."""
    key, rest = table[np.uintp(entry), _KEY], table[np.uintp(entry), _REST]
    return rest - 1 if _is_long(key, rest, alphabet) else np.int64(-1)


@njit(nogil=True, cache=True)
def entries(table, arena, words, alphabet):
    """Where the entries of so many words are, and the first symbols of each as a number that sorts as they do."""
    places = np.empty(words, dtype=np.int64)
    keys = np.empty(words, dtype=np.int64)
    n = 0
    for entry in range(len(table)):
        if table[np.uintp(entry), COUNT]:
            places[n], keys[n] = entry, _number(table, arena, entry, alphabet, 0)
            n += 1
    return places, keys


@njit(inline="always")
def _number(table, arena, entry, alphabet, depth):
    """The symbols of a word from `depth` on, a multiple of `each`, as a number that sorts as they do."""
    place = _place(table, entry, alphabet)
    if place < 0:
        return (
            table[np.uintp(entry), _KEY if depth == 0 else _REST] if depth <= alphabet.each else np.int64(0)
        )
    number, left = np.int64(0), alphabet.each
    while left and arena[place + depth]:
        number = number << alphabet.bits | np.int64(arena[place + depth])
        depth += 1
        left -= 1
    return number << alphabet.bits * left


@njit(nogil=True, cache=True)
def sort_equal(table, arena, entries, keys, alphabet):
    """Sort those of `entries`, sorted by their first symbols (`keys`), that have these in common."""
    todo = [(np.int64(0), alphabet.each, keys)]
    while todo:
        begin, depth, keys = todo.pop()
        first = 0
        for n in range(1, len(keys) + 1):
            if n < len(keys) and keys[n] == keys[first]:
                continue
            if n - first > 1:
                some = entries[begin + first : begin + n]
                more = np.empty(len(some), dtype=np.int64)
                for k, entry in enumerate(some):
                    more[k] = _number(table, arena, entry, alphabet, depth)
                _sort(more, some)
                if (more[1:] == more[:-1]).any():
                    todo.append((begin + first, depth + alphabet.each, more))
            first = n


@njit(nogil=True, cache=True)
def _sort(keys, entries):
    """Sort both by the keys. Mostly there are few."""
    if len(keys) > 32:
        order = np.argsort(keys)
        keys[:] = keys[order]
        entries[:] = entries[order]
        return
    for n in range(1, len(keys)):
        key, entry = keys[n], entries[n]
        while n > 0 and keys[n - 1] > key:
            keys[n], entries[n] = keys[n - 1], entries[n - 1]
            n -= 1
        keys[n], entries[n] = key, entry


@njit(nogil=True, cache=True)
def spell(table, arena, entries, alphabet):
    """The words in UTF-8 one after the other, and where each ends, after a first 0."""
    ends = np.empty(len(entries) + 1, dtype=np.int64)
    symbols = np.empty(2 * alphabet.each, dtype=arena.dtype)
    text = np.empty(4 * len(symbols) * len(entries), dtype=np.uint8)
    at = 0
    for n, entry in enumerate(entries):
        ends[n] = at
        place = _place(table, entry, alphabet)
        if place >= 0:
            word = arena[place : place + _length(arena, place)]
        else:
            word = symbols[: _unpacked(table[entry, _KEY], table[entry, _REST], alphabet, symbols)]
        if at + 4 * len(word) > len(text):
            text = np.concatenate((text, np.empty(len(text) + 4 * len(word), dtype=np.uint8)))
        for symbol in word:
            at = _write(np.int64(alphabet.characters[symbol]), text, at)
    ends[len(entries)] = at
    return text[:at], ends


@njit(inline="always")
def _length(arena, place):
    size = 0
    while arena[place + size]:
        size += 1
    return size


@njit(inline="always")
def _unpacked(key, rest, alphabet, symbols):
    """The symbols of a short word; returns how many."""
    many = 0
    for number in (key, rest):
        for k in range(alphabet.each - 1, -1, -1):
            symbol = number >> alphabet.bits * k & (1 << alphabet.bits) - 1
            if symbol == 0:
                break
            symbols[many] = symbol
            many += 1
    return many


@njit(inline="always")
def _write(character, text, at):
    """Write a character at `at`; returns where it ends."""
    if character < 0x80:
        text[at] = character
        return at + 1
    if character < 0x800:
        text[at] = 0xC0 | character >> 6
        text[at + 1] = 0x80 | character & 0x3F
        return at + 2
    if character < 0x10000:
        text[at] = 0xE0 | character >> 12
        text[at + 1] = 0x80 | character >> 6 & 0x3F
        text[at + 2] = 0x80 | character & 0x3F
        return at + 3
    text[at] = 0xF0 | character >> 18
    text[at + 1] = 0x80 | character >> 12 & 0x3F
    text[at + 2] = 0x80 | character >> 6 & 0x3F
    text[at + 3] = 0x80 | character & 0x3F
    return at + 4


@njit(nogil=True, cache=True)
def move(old, new, alphabet):
    """Put the entries of one table into a larger one."""
    for entry in range(len(old)):
        if old[entry, COUNT]:
            slot = _slot(old[entry, _KEY], old[entry, _REST], alphabet, len(new))
            while new[slot, COUNT]:
                slot += 1
                if slot == len(new):
                    slot = 0
            new[slot] = old[entry]
