"""The tally's compiled code: words found in bytes, counted in a hash table, sorted and spelled.

An entry of the table is four numbers. Of a word of up to 16 bytes, as nearly all are, two are the word itself,
so that to find it is one look into memory; a longer one lies in the arena, beside the table.

An index is `np.uintp` where time is spent: of other numbers numba asks whether they count from the end.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from eeve_axolotl.tokenizer.words import BOUNDARY

SECTION = 1 << 18
"""A longer document counts as several, each of so many bytes: memory is bounded by words, not by documents."""

SHORT = 16
"""Bytes of a word that lies in its entry. So many that are not text must follow every text."""

DONE, FULL, LONG = range(3)
"""How `count` ends: the text is counted; the table has no room for a section; the arena none for a word."""

# Columns of an entry. A short word's bytes are two little-endian numbers, zero where it has none. A long one has
# 56 bits of hash and its place in the arena + 1, which no short one looks like: without its eighth byte it has no
# ninth. Words with a zero byte go with the long ones. SEEN is documents << 32 | the section it was last seen in.
_KEY, _REST, COUNT, SEEN = range(4)
_HEADER = 4  # bytes of a long word's length, before it in the arena
_AHEAD, _SLOT = 128, 4  # words found before they are looked up, and the column of where each may be
_SPACE = 0x20
_MARK = np.frombuffer(BOUNDARY.encode(), dtype=np.uint8)
_MARK_AS_NUMBER, _MARK_SORTS_AS = (int.from_bytes(BOUNDARY.encode(), order) for order in ("little", "big"))
_LOWEST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int32).max


@njit(nogil=True, cache=True)
def count(text, eights, ends, letters, separated, state, table, room, arena):
    """Count words from where `state` says until the text ends or there is no room for another section."""
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
            if words + ahead // 2 + 1 > room or used + 4 * ahead > len(arena):
                state[6] = words + ahead // 2 + 1
                outcome = FULL
                break
            section += 1
            begun = i
        i, many = _find(
            text, eights, i, min(begun + SECTION, end), end, letters, separated, len(table), found
        )
        # Entries lie far apart: a look at all of them first, as memory answers many questions in the time of one.
        touched = np.int64(0)
        for n in range(many):
            touched |= table[found[n, _SLOT], COUNT]
        state[6] = touched  # so that no compiler leaves it out
        for n in range(many):
            start, size, key, rest, slot = found[n]
            long = _is_long(key, rest)
            while table[np.uintp(slot), COUNT]:
                if table[np.uintp(slot), _KEY] == key:
                    if long:
                        place = table[np.uintp(slot), _REST] - 1
                        if place >= 0 and _same(text, start, size, arena, place):
                            break
                    elif table[np.uintp(slot), _REST] == rest:
                        break
                slot += 1
                if slot == len(table):
                    slot = 0
            if table[np.uintp(slot), COUNT] == 0:
                if long:
                    if used + _HEADER + size > len(arena):
                        i = start
                        outcome = LONG
                        break
                    rest = used + 1
                    for k in range(_HEADER):
                        arena[used + k] = size >> 8 * k & 0xFF
                    for k in range(size):
                        arena[used + _HEADER + k] = text[start + k]
                    used += _HEADER + size
                table[np.uintp(slot), _KEY], table[np.uintp(slot), _REST] = key, rest
                words += 1
            table[np.uintp(slot), COUNT] += 1
            seen = table[np.uintp(slot), SEEN]
            if seen & 0xFFFFFFFF != section:
                table[np.uintp(slot), SEEN] = (seen >> 32) + 1 << 32 | section
        if outcome == LONG:
            break
    state[0], state[1], state[2], state[3], state[4], state[5] = i, document, section, begun, words, used
    return outcome


@njit(inline="always")
def _find(text, eights, i, stop, end, letters, separated, slots, found):
    """The words that begin from byte `i` on and before `stop`, `_AHEAD` at most; returns where it stopped."""
    many = 0
    while i < stop and many < _AHEAD:
        start = i
        if separated:
            while i < end and text[np.uintp(i)] != 0xFF:
                i += 1
            if i == start:
                i += 1
                continue
        else:
            while i < end and text[np.uintp(i)] == _SPACE:
                i += 1
            first, length = i, 0
            while i < end:
                code, length = _character(text, i)
                if not letters[np.uintp(code)]:
                    break
                i += length
            if i == first:  # not even a letter: step over what stands there
                i += length
                continue
        size = i - start
        short = size <= SHORT
        key = rest = np.int64(0)
        if size >= 8:
            key = eights[np.uintp(start)]
            rest = eights[np.uintp(start + 8)] & _first(size - 8)
        else:
            key = eights[np.uintp(start)] & _first(size)
        if separated:
            for k in range(start, i):
                short = short and text[np.uintp(k)] != 0
        if not short:
            key = np.int64(-3750763034362895579)  # FNV-1a
            for k in range(start, i):
                key = (key ^ np.int64(text[np.uintp(k)])) * np.int64(1099511628211)
            key &= _first(7)
            rest = np.int64(-1)  # it has no place in the arena yet
        found[many, 0], found[many, 1], found[many, 2], found[many, 3] = start, size, key, rest
        found[many, _SLOT] = _slot(key, rest, slots)
        many += 1
    return i, many


@njit(inline="always")
def _first(n):
    """A mask for the first `n` bytes of eight, of all from 8 on."""
    return (np.int64(1) << 8 * n) - 1 if n < 8 else np.int64(-1)


@njit(inline="always")
def _after_first(key, rest):
    """A short word without its first byte."""
    return (key >> 8 & _first(7)) | rest << 56, rest >> 8 & _first(7)


@njit(inline="always")
def _is_long(key, rest):
    """Whether these are of a long word: a short one without its eighth byte has no ninth."""
    return key >> 56 == 0 and rest != 0


@njit(inline="always")
def _slot(key, rest, size):
    if _is_long(key, rest):
        rest = np.int64(0)
    value = (key ^ rest * np.int64(-7046029254386353131)) * np.int64(-4417276706812531889)
    return ((value >> 32 & 0xFFFFFFFF) * size) >> 32


@njit(inline="always")
def _character(text, i):
    """The code point whose UTF-8 begins at byte `i`, and its length in bytes."""
    lead = np.int64(text[np.uintp(i)])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | (text[np.uintp(i + 1)] & 0x3F), 2
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | np.int64(text[np.uintp(i + 1)] & 0x3F) << 6 | np.int64(
            text[np.uintp(i + 2)] & 0x3F
        ), 3
    return (
        (lead & 0x07) << 18
        | np.int64(text[np.uintp(i + 1)] & 0x3F) << 12
        | np.int64(text[np.uintp(i + 2)] & 0x3F) << 6
        | np.int64(text[np.uintp(i + 3)] & 0x3F)
    ), 4


@njit(nogil=True, cache=True)
def _same(text, start, size, arena, at):
    if size != _long_size(arena, at):
        return False
    for k in range(size):
        if text[start + k] != arena[at + _HEADER + k]:
            return False
    return True


@njit(inline="always")
def _long_size(arena, at):
    size = np.int64(0)
    for k in range(_HEADER):
        size |= np.int64(arena[at + k]) << 8 * k
    return size


@njit(inline="always")
def _place(table, entry):
    """Where an entry's word is in the arena, -1 for a short one."""
    key, rest = table[entry, _KEY], table[entry, _REST]
    return rest - 1 if _is_long(key, rest) else np.int64(-1)


@njit(nogil=True, cache=True)
def eight_bytes(table, arena, entries, depth):
    """Eight bytes of each word, from byte `depth` on, as numbers that sort as they do."""
    keys = np.empty(len(entries), dtype=np.int64)
    for n, entry in enumerate(entries):
        place = _place(table, entry)
        key = np.int64(0)
        if place < 0:
            eight = np.int64(0)
            if depth < SHORT:
                eight = table[entry, _KEY if depth == 0 else _REST]
            for k in range(8):
                key = key << 8 | (eight >> 8 * k & 0xFF)
        else:
            size = _long_size(arena, place)
            for k in range(depth, depth + 8):
                key = key << 8 | (np.int64(arena[place + _HEADER + k]) if k < size else 0)
            if size <= depth:  # equal to the end, as only words with zero bytes are
                key = size
        keys[n] = key ^ _LOWEST  # without a sign
    return keys


@njit(nogil=True, cache=True)
def ranks(table, arena, entries):
    """What words sorted as they are must be sorted by, keeping the order of equals, once each space is a ▁.

    Letters stand before and after ▁: first comes `a`, then ` a`, `  a`, then `  가`, ` 가`, `가`.
    """
    ranks = np.empty(len(entries), dtype=np.int32)
    for n, entry in enumerate(entries):
        place = _place(table, entry)
        spaces = letter = 0  # the letter's first three bytes: so many has ▁
        if place < 0:
            key, rest = table[entry, _KEY], table[entry, _REST]
            while key & 0xFF == _SPACE:
                key, rest = _after_first(key, rest)
                spaces += 1
            for k in range(3):
                letter = letter << 8 | (key >> 8 * k & 0xFF)
        else:
            size = _long_size(arena, place)
            while arena[place + _HEADER + spaces] == _SPACE:
                spaces += 1
            for k in range(spaces, spaces + 3):
                letter = letter << 8 | (np.int64(arena[place + _HEADER + k]) if k < size else 0)
        ranks[n] = spaces if letter < _MARK_SORTS_AS else _LAST - spaces
    return ranks


@njit(nogil=True, cache=True)
def sort_equal(table, arena, entries, keys):
    """Sort those of `entries`, sorted by their first bytes (`keys`), that have these in common."""
    todo = [(np.int64(0), np.int64(8), keys)]
    while todo:
        begin, depth, keys = todo.pop()
        some = entries[begin : begin + len(keys)]
        more = eight_bytes(table, arena, some, depth)
        first = 0
        for n in range(1, len(keys) + 1):
            if n < len(keys) and keys[n] == keys[first]:
                continue
            if n - first > 1:
                _sort(more[first:n], some[first:n])
                if (more[first + 1 : n] == more[first : n - 1]).any():
                    todo.append((begin + first, depth + 8, more[first:n]))
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
def lengths(table, arena, entries):
    """How many bytes each word has with a ▁ for each space."""
    lengths = np.empty(len(entries), dtype=np.int64)
    for n, entry in enumerate(entries):
        place = _place(table, entry)
        length = spaces = 0
        if place < 0:
            for eight in (table[entry, _KEY], table[entry, _REST]):
                for k in range(8):
                    byte = eight >> 8 * k & 0xFF
                    length += byte != 0
                    spaces += byte == _SPACE
        else:
            length = _long_size(arena, place)
            for k in range(length):
                spaces += arena[place + _HEADER + k] == _SPACE
        lengths[n] = length + spaces * (len(_MARK) - 1)
    return lengths


@njit(nogil=True, cache=True)
def spell(table, arena, entries, text, eights, ends):
    """Write the words one after the other, with a ▁ for each space."""
    for n, entry in enumerate(entries):
        at = ends[n]
        place = _place(table, entry)
        if place < 0:
            key, rest = table[entry, _KEY], table[entry, _REST]
            while key & 0xFF == _SPACE:  # only first in a word
                eights[at] = _MARK_AS_NUMBER
                at += len(_MARK)
                key, rest = _after_first(key, rest)
            eights[at], eights[at + 8] = key, rest  # what is too long is written over by the next word
        else:
            for k in range(_long_size(arena, place)):
                byte = arena[place + _HEADER + k]
                if byte == _SPACE:
                    for mark in _MARK:
                        text[at] = mark
                        at += 1
                else:
                    text[at] = byte
                    at += 1


@njit(nogil=True, cache=True)
def move(old, new):
    """Put the entries of one table into a larger one."""
    for entry in range(len(old)):
        if old[entry, COUNT]:
            slot = _slot(old[entry, _KEY], old[entry, _REST], len(new))
            while new[slot, COUNT]:
                slot += 1
                if slot == len(new):
                    slot = 0
            new[slot] = old[entry]
