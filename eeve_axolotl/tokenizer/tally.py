"""Counting the words of a stream of documents, compiled: a hash table over bytes, in bounded memory.

Why not a dictionary: counting in Python takes as long as a quarter of tokenizing. Here a word of up to 16
bytes, as nearly all are, lies in the table itself beside its counts, so that to find it is one look into
memory. Counting goes on in a thread of its own while the next documents are read.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from eeve_axolotl.tokenizer.words import BOUNDARY, Segmentation

if TYPE_CHECKING:
    import pyarrow

SECTION = 1 << 18
"""A longer document counts as several, each of so many bytes: memory is bounded by words, not by documents."""

_BATCH, _WAITING = (
    1 << 20,
    3,
)  # bytes of text handed to the compiled code at once, and how many batches may wait
_SEPARATOR = b"\xff"  # in no UTF-8
_SPACE = 0x20
_MARK = np.frombuffer(BOUNDARY.encode(), dtype=np.uint8)
_MARK_AS_NUMBER, _MARK_SORTS_AS = (int.from_bytes(BOUNDARY.encode(), order) for order in ("little", "big"))
# Bytes for a word: its entry at a load of 5/8, those of a long word, and, while spilling, a sorted copy.
_PER_WORD, _LONG_BYTES = 130, 8
_ROW_GROUP = 100_000  # words
_HEADER = 4  # bytes of a long word's length, before it in the arena
_DONE, _FULL, _LONG = range(3)
# Columns of an entry. A short word's bytes are two little-endian numbers, zero where it has none. A long one has
# 56 bits of hash and its place in the arena + 1, which no short one looks like: without its eighth byte it has no
# ninth. Words with a zero byte go with the long ones. _SEEN is documents << 32 | the section it was last seen in.
_KEY, _REST, _COUNT, _SEEN = range(4)
_SHORT = 16
_AHEAD, _SLOT = 128, 4  # words found before they are looked up, and the column of where each may be
_LOWEST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int32).max


class Tally:
    """Counts of words that go to disk when they have grown to `memory` bytes."""

    def __init__(self, segmentation: Segmentation, prefix: Path, memory: int):
        """
        Args:
            prefix: partial counts go to `prefix`-0.parquet, -1 and so on, with columns word, count and
                documents, sorted by word.
        """
        self.segmentation = segmentation
        self.prefix = prefix
        self.files: list[str] = []
        self.most = memory // _PER_WORD  # words in memory, or those of one section
        self.letters = segmentation.letters()
        self._batch: list[bytes] = []
        self._size = self._section = 0
        self._thread = ThreadPoolExecutor(1)
        self._counting: deque[Future] = deque()
        self._clear(min(self.most, SECTION))

    def _clear(self, room: int) -> None:
        """An empty table with room for so many words."""
        self.room = room
        self.words = self._used = 0  # words, and bytes of the arena
        self._table = _empty_table(room * 8 // 5 + 1)
        self._arena = np.empty(max(_LONG_BYTES * room, 8 * SECTION), dtype=np.uint8)

    def add(self, text: str) -> int:
        """Count a document's words; returns how many bytes its text has."""
        encoded = text.encode("utf-8", "surrogatepass")
        if self.segmentation.exactly_spans:
            pieces = self.segmentation.pieces(text)
            if len(pieces) == 1 and pieces[0].endswith(text):  # nearly always, and a copy less
                raw = pieces[0][: len(pieces[0]) - len(text)].encode() + encoded
            else:
                raw = "\n".join(pieces).encode("utf-8", "surrogatepass")
        else:
            raw = _SEPARATOR.join(
                word.encode("utf-8", "surrogatepass") for word in self.segmentation.words(text)
            )
        if raw:
            self._batch.append(raw)
            self._size += len(raw)
            if self._size >= _BATCH:
                self._hand_over()
        return len(encoded)

    def _hand_over(self) -> None:
        """Give the batch to the thread, when that has few others left."""
        self._wait(_WAITING)
        self._counting.append(self._thread.submit(self._count, self._batch))
        self._batch, self._size = [], 0

    def _wait(self, most: int = 0) -> None:
        """Until no more than `most` batches are left to count."""
        while len(self._counting) > most:
            self._counting.popleft().result()

    def _count(self, batch: list[bytes]) -> None:
        raw = b"".join([*batch, bytes(_SHORT)])
        text = np.frombuffer(raw, dtype=np.uint8)
        eights = _eights(raw)
        ends = np.cumsum([len(raw) for raw in batch])
        separated = not self.segmentation.exactly_spans
        # Where the compiled code stands: byte, document, section and where that began, words, bytes of the arena,
        # and words to make room for.
        state = np.array([0, 0, self._section, -SECTION, self.words, self._used, 0], dtype=np.int64)
        outcome = None
        while outcome != _DONE:
            outcome = _tally(
                text, eights, ends, self.letters, separated, state, self._table, self.room, self._arena
            )
            self.words, self._used = int(state[4]), int(state[5])
            if outcome == _LONG:
                self._arena = np.resize(self._arena, 2 * len(self._arena) + 2 * len(text))
            elif outcome == _FULL and self.words and self.room >= self.most:
                self._spill()
                self._clear(self.room)
                state[2], state[4], state[5] = 0, 0, 0
            elif outcome == _FULL:
                self._grow(max(min(2 * self.room, self.most), int(state[6])))
        self._section = int(state[2])

    def _grow(self, room: int) -> None:
        table, arena, words, used = self._table, self._arena, self.words, self._used
        self._clear(room)
        self.words, self._used = words, used
        if len(arena) > len(self._arena):
            self._arena = arena
        else:
            self._arena[: len(arena)] = arena
        _move(table, self._table)

    def close(self) -> None:
        """Count what has been added and write what is not on disk yet."""
        if self._batch:
            self._hand_over()
        self._wait()
        self._thread.shutdown()
        self._spill()
        del self._table, self._arena

    def _spill(self) -> None:
        from pyarrow import parquet

        if self.words == 0:
            return
        path = self.prefix.with_name(f"{self.prefix.name}-{len(self.files)}.parquet")
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        rows, order = self._sorted()
        first, *others = np.array_split(order, -(-len(order) // _ROW_GROUP))
        with ThreadPoolExecutor(1) as ahead:
            group = self._spelled(rows, first)
            # A dictionary of words that all differ would be made in vain.
            with parquet.ParquetWriter(
                beside, group.schema, compression="lz4", use_dictionary=["count", "documents"]
            ) as writer:
                for other in others:
                    following = ahead.submit(self._spelled, rows, other)
                    writer.write_table(group)
                    group = following.result()
                writer.write_table(group)
        beside.replace(path)
        self.files.append(path.name)

    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The table's entries, almost sorted by word, and the order in which they are."""
        entries = np.flatnonzero(self._table[:, _COUNT])
        keys = _keys(self._table, self._arena, entries, 0)
        order = np.argsort(keys)
        # A copy, so that what follows goes through memory from one end to the other.
        rows, keys = np.take(self._table, entries[order], axis=0), keys[order]
        order = np.arange(len(rows))
        _sort_equal(rows, self._arena, order, keys)
        return rows, order[np.argsort(_ranks(rows, self._arena, order), kind="stable")]

    def _spelled(self, rows: np.ndarray, entries: np.ndarray) -> pyarrow.Table:
        """Some of the words, in this order, and their counts."""
        import pyarrow

        ends = np.zeros(len(entries) + 1, dtype=np.int64)
        np.cumsum(_lengths(rows, self._arena, entries), out=ends[1:])
        text = np.empty(ends[-1] + _SHORT, dtype=np.uint8)
        _spell(rows, self._arena, entries, text, _eights(text), ends)
        buffers = (pyarrow.py_buffer(ends), pyarrow.py_buffer(text))
        columns = {
            "word": pyarrow.LargeStringArray.from_buffers(len(entries), *buffers),
            "count": rows[entries, _COUNT],
            "documents": rows[entries, _SEEN] >> 32,
        }
        return pyarrow.table(columns)


def _empty_table(entries: int) -> np.ndarray:
    """So many empty entries, in memory of their own: of a thread's malloc it would not go back to the system."""
    memory = mmap.mmap(-1, 32 * entries, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.int64).reshape(entries, 4)


def _eights(raw) -> np.ndarray:
    """A view of bytes: the eight from each on as a number."""
    return np.ndarray(len(raw) - 7, dtype="<i8", buffer=raw, strides=(1,))


@njit(nogil=True, cache=True)
def _tally(text, eights, ends, letters, separated, state, table, room, arena):
    """Count words from where `state` says until the text ends or there is no room for another section."""
    i, document, section, begun, words, used, _ = state
    found = np.empty((_AHEAD, 5), dtype=np.int64)
    outcome = _DONE
    while i < ends[-1]:
        if i == ends[document]:
            document += 1
            begun = i - SECTION
        end = ends[document]
        if i - begun >= SECTION:  # a new document or section: is there room for all its words?
            ahead = min(SECTION, end - i)
            if words + ahead // 2 + 1 > room or used + 4 * ahead > len(arena):
                state[6] = words + ahead // 2 + 1
                outcome = _FULL
                break
            section += 1
            begun = i
        i, many = _find(
            text, eights, i, min(begun + SECTION, end), end, letters, separated, len(table), found
        )
        # Entries lie far apart: a look at all of them first, as memory answers many questions in the time of one.
        for n in range(many):
            state[6] |= table[found[n, _SLOT], _COUNT]
        for n in range(many):
            start, size, key, rest, slot = found[n]
            long = _is_long(key, rest)
            while table[slot, _COUNT]:
                if table[slot, _KEY] == key:
                    if long:
                        if table[slot, _REST] and _same(text, start, size, arena, table[slot, _REST] - 1):
                            break
                    elif table[slot, _REST] == rest:
                        break
                slot += 1
                if slot == len(table):
                    slot = 0
            if table[slot, _COUNT] == 0:
                if long:
                    if used + _HEADER + size > len(arena):
                        i = start
                        outcome = _LONG
                        break
                    rest = used + 1
                    for k in range(_HEADER):
                        arena[used + k] = size >> 8 * k & 0xFF
                    for k in range(size):
                        arena[used + _HEADER + k] = text[start + k]
                    used += _HEADER + size
                table[slot, _KEY], table[slot, _REST] = key, rest
                words += 1
            table[slot, _COUNT] += 1
            seen = table[slot, _SEEN]
            if seen & 0xFFFFFFFF != section:
                table[slot, _SEEN] = (seen >> 32) + 1 << 32 | section
        if outcome == _LONG:
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
            while i < end and text[i] != 0xFF:
                i += 1
            if i == start:
                i += 1
                continue
        else:
            while i < end and text[i] == _SPACE:
                i += 1
            first, length = i, 0
            while i < end:
                code, length = _character(text, i)
                if not letters[code]:
                    break
                i += length
            if i == first:  # not even a letter: step over what stands there
                i += length
                continue
        size = i - start
        short = size <= _SHORT
        key = rest = np.int64(0)
        if size >= 8:
            key = eights[start]
            rest = eights[start + 8] & _first(size - 8)
        else:
            key = eights[start] & _first(size)
        if separated:
            for k in range(start, i):
                short = short and text[k] != 0
        if not short:
            key = np.int64(-3750763034362895579)  # FNV-1a
            for k in range(start, i):
                key = (key ^ np.int64(text[k])) * np.int64(1099511628211)
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
    lead = np.int64(text[i])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | (text[i + 1] & 0x3F), 2
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | np.int64(text[i + 1] & 0x3F) << 6 | np.int64(text[i + 2] & 0x3F), 3
    return (
        (lead & 0x07) << 18
        | np.int64(text[i + 1] & 0x3F) << 12
        | np.int64(text[i + 2] & 0x3F) << 6
        | np.int64(text[i + 3] & 0x3F)
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
def _keys(table, arena, entries, depth):
    """Eight bytes of each word, from byte `depth` on, as numbers that sort as they do."""
    keys = np.empty(len(entries), dtype=np.int64)
    for n, entry in enumerate(entries):
        place = _place(table, entry)
        key = np.int64(0)
        if place < 0:
            eight = np.int64(0)
            if depth < _SHORT:
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
def _ranks(table, arena, entries):
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
def _sort_equal(table, arena, entries, keys):
    """Sort those of `entries`, sorted by their first bytes (`keys`), that have these in common."""
    todo = [(np.int64(0), np.int64(8), keys)]
    while todo:
        begin, depth, keys = todo.pop()
        some = entries[begin : begin + len(keys)]
        more = _keys(table, arena, some, depth)
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
def _lengths(table, arena, entries):
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
def _spell(table, arena, entries, text, eights, ends):
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
def _move(old, new):
    """Put the entries of one table into a larger one."""
    for entry in range(len(old)):
        if old[entry, _COUNT]:
            slot = _slot(old[entry, _KEY], old[entry, _REST], len(new))
            while new[slot, _COUNT]:
                slot += 1
                if slot == len(new):
                    slot = 0
            new[slot] = old[entry]
