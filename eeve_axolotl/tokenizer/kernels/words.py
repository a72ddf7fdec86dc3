"""Words found in text, counted in a hash table, sorted and spelled.

A word's characters are numbered by an `Alphabet`, in few bits and in their order. So several of them make one
number, and words sort as these numbers do. An entry of the table is four numbers. A short word, as nearly all are,
is two of them, so that it is found with one look into memory. A longer one lies in the arena, beside the table.

The arrays, by the names that they have in all functions:

    text     uint32, one code point for each character
    ends     int64, where each document ends in `text`
    table    int64 (entries, 4), with the columns that are named below; COUNT is 0 in an empty entry
    arena    the dtype of the alphabet's `symbols`: long words, each with a 0 after it
    entries  int64, rows of the table
    keys     int64, for each of `entries` a number that sorts as some of its symbols do

An index is `np.uintp` where time is spent: a signed one could count from the end, which numba checks each time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

SECTION = 1 << 18
"""A longer document counts as several, each of so many characters: memory is bounded by words, not by documents."""

DONE, FULL, LONG = range(3)
"""How `count` ends: the text is counted; the table has no room for a section; the arena none for a word."""


class Progress(NamedTuple):
    """How far `count` is in a text, and in filling its table."""

    character: int = 0
    """The next one to read."""

    document: int = 0
    """The one that it is in."""

    section: int = 0
    """The number of the section that it is in, since the table was empty."""

    begun: int = -SECTION
    """The character with which that section began."""

    words: int = 0
    """How many the table has."""

    used: int = 0
    """How many symbols of the arena are in use."""

    needed: int = 0
    """After FULL: the words that the table must have room for."""

    touched: int = 0
    """Of no meaning. It depends on all early looks into memory, so that no compiler leaves them out."""


# Columns of an entry. A short word is one number, or two. A long one has a hash without its last symbol, and its
# place in the arena + 1: no short one looks like it. SEEN is documents << 32 | the section it was last seen in.
_KEY, _REST, COUNT, SEEN = range(4)
# Columns of what is found in the text before it is looked up: the first character and how many, what an entry has of
# it, and where in the table it may be.
_START, _SIZE, _FOUND_KEY, _FOUND_REST, _SLOT = range(5)
_AHEAD = 128  # words that are found before they are looked up


@njit(nogil=True, cache=True)
def utf8_size(text):
    """How many bytes the text (uint32) has in UTF-8."""
    size = len(text)
    for begin in range(0, len(text), SECTION):
        more = np.uint32(0)  # many of these are added at once
        for character in text[begin : begin + SECTION]:
            more += np.uint32(character >= 0x80)
            more += np.uint32(character >= 0x800)
            more += np.uint32(character >= 0x10000)
        size += int(more)
    return size


@njit(nogil=True, cache=True)
def count(text, ends, alphabet, progress, table, room, arena):
    """Count words in `table`, from where `progress` says until the text ends or room is wanting.

    A word is boundaries and then other symbols, as many as there are. Each of its documents, or of the sections
    of a long one, adds one to its documents.

    Args:
        text: its last character in each document is in no word.
        ends: of at least one document.
        room: how many words the table may have. It must have more entries than that.

    Returns how it ended (DONE, FULL or LONG) and the progress to go on with, once there is more room.
    """
    i, document, section, begun = progress.character, progress.document, progress.section, progress.begun
    words, used, touched = progress.words, progress.used, progress.touched
    found = np.empty((_AHEAD, 5), dtype=np.int64)
    while i < ends[-1]:
        if i == ends[document]:
            document += 1
            begun = i - SECTION
        end = ends[document]
        if i - begun >= SECTION:  # a new document or section: is there room for all its words?
            ahead = min(SECTION, end - i)
            needed = words + ahead // 2 + 1
            if needed > room or used + 2 * ahead > len(arena):
                return FULL, Progress(i, document, section, begun, words, used, needed, touched)
            section += 1
            begun = i
        i, many = _find(text, i, min(begun + SECTION, end), alphabet, len(table), found)
        # Entries lie far apart: a look at all of them first, as memory answers many questions in the time of one.
        for n in range(many):
            touched |= table[found[n, _SLOT], COUNT]
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
                        return LONG, Progress(start, document, section, begun, words, used, 0, touched)
                    rest = used + 1
                    used = _put(text, start, size, arena, used, alphabet)
                table[np.uintp(slot), _KEY], table[np.uintp(slot), _REST] = key, rest
                words += 1
            table[np.uintp(slot), COUNT] += 1
            seen = table[np.uintp(slot), SEEN]
            table[np.uintp(slot), SEEN] = (seen >> 32) + (seen & 0xFFFFFFFF != section) << 32 | section
    return DONE, Progress(i, document, section, begun, words, used, 0, touched)


@njit(inline="always")
def _put(text, start, size, arena, used, alphabet):
    """Put a long word behind what is in the arena; returns how much of that is in use then."""
    for k in range(size):
        arena[used + k] = alphabet.symbols[text[start + k]]
    arena[used + size] = 0
    return used + size + 1


@njit(inline="always")
def _find(text, i, stop, alphabet, slots, found):
    """Find the words that begin from character `i` on and before `stop`, `_AHEAD` at most.

    They go to `found`, int64 (_AHEAD, 5). Returns where it stopped in the text and how many they are.
    """
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
        found[many, _START], found[many, _SIZE] = start, size
        found[many, _FOUND_KEY], found[many, _FOUND_REST] = key, rest
        found[many, _SLOT] = _slot(key, rest, alphabet, slots)
        many += 1
    return i, many


@njit(inline="always")
def _symbol(text, i, symbols):
    """The symbol of a character of the text."""
    return np.int64(symbols[np.uintp(text[np.uintp(i)])])


@njit(inline="always")
def _with(symbol, word, alphabet):
    """A word with one more symbol.

    A word is the number before the last, the last number, and how many more symbols that has room for.
    """
    before, last, left = word
    if left == 0:
        before, last, left = last, np.int64(0), alphabet.each
    return before, last << alphabet.bits | symbol, left - 1


@njit(inline="always")
def _is_long(key, rest, alphabet):
    """Whether a key and a rest are those of a long word: a short one whose key lacks its last symbol has no rest."""
    return key & (1 << alphabet.bits) - 1 == 0 and rest != 0


@njit(inline="always")
def _slot(key, rest, alphabet, size):
    """Where in a table of `size` entries a word is looked for first."""
    if _is_long(key, rest, alphabet):
        rest = np.int64(0)
    value = (key ^ rest * np.int64(-7046029254386353131)) * np.int64(-4417276706812531889)
    return ((value >> 32 & 0xFFFFFFFF) * size) >> 32


@njit(nogil=True, cache=True)
def _same(text, start, size, arena, at, alphabet):
    """Whether the word at `at` in the arena is the one of `size` characters at `start` in the text."""
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
    """The rows of the table that are in use, `words` of them, and the first symbols of each as a number.

    Returns entries and keys, both int64 (words,), in the order of the table.
    """
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
    """Sort, in place, those of `entries` whose first symbols are the same.

    Args:
        entries, keys: both sorted by `keys`, the first symbols of the words.
    """
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
    """Sort both by the keys, in place. Mostly there are few."""
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
    """The words of `entries` in UTF-8.

    Returns the bytes of all words, one after the other (uint8), and where each ends, after a first 0
    (int64, one more than words): what an Arrow array of strings is made of.
    """
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
            at = write_character(np.int64(alphabet.characters[symbol]), text, at)
    ends[len(entries)] = at
    return text[:at], ends


@njit(inline="always")
def _length(arena, place):
    """How many symbols the word at `place` in the arena has."""
    size = 0
    while arena[place + size]:
        size += 1
    return size


@njit(inline="always")
def _unpacked(key, rest, alphabet, symbols):
    """Write the symbols of a short word into `symbols`; returns how many they are."""
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
def write_character(character, text, at):
    """Write a character's UTF-8 into `text` at `at`; returns where it ends."""
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
    """Put the entries of one table (int64 (entries, 4)) into a larger one that is empty."""
    for entry in range(len(old)):
        if old[entry, COUNT]:
            slot = _slot(old[entry, _KEY], old[entry, _REST], alphabet, len(new))
            while new[slot, COUNT]:
                slot += 1
                if slot == len(new):
                    slot = 0
            new[slot] = old[entry]
