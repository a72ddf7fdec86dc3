"""Counting the words of a stream of documents, compiled: a hash table over bytes, in bounded memory.

Why not a dictionary: counting in Python takes as long as a quarter of tokenizing. Here a word of up to 16
bytes, as nearly all are, lies in the table itself beside its counts, so that to find it is one look into
memory. Counting goes on in a thread of its own while the next documents are read.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numba import njit

from eeve_axolotl.tokenizer.words import BOUNDARY, Segmentation

SECTION = 1 << 18
"""A longer document counts as several, each of so many bytes: memory is bounded by words, not by documents."""

_BATCH = 4 << 20  # bytes of text handed to the compiled code at once
_SEPARATOR = b"\xff"  # in no UTF-8
_SPACE = 0x20
_MARK = np.frombuffer(BOUNDARY.encode(), dtype=np.uint8)
# Bytes for a word: its entry at a load of 5/8, those of a long word, and, while spilling, a sorted copy.
_PER_WORD, _LONG_BYTES = 130, 8
_HEADER = 4  # bytes of a long word's length, before it in the arena
_DONE, _FULL, _LONG = range(3)
# Columns of an entry. A short word's bytes are two little-endian numbers, zero where it has none. A long one has
# 56 bits of hash and its place in the arena + 1, which no short one looks like: without its eighth byte it has no
# ninth. Words with a zero byte go with the long ones. _SEEN is documents << 32 | the section it was last seen in.
_KEY, _REST, _COUNT, _SEEN = range(4)
_SHORT = 16
_LOWEST = np.iinfo(np.int64).min


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
        self._counting: Future | None = None
        self._clear(min(self.most, SECTION))

    def _clear(self, room: int) -> None:
        """An empty table with room for so many words."""
        self.room = room
        self.words = self._used = 0  # words, and bytes of the arena
        self._table = _aligned(room * 8 // 5 + 1)
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
        """Give the batch to the thread, when that is done with the one before."""
        self._wait()
        self._counting = self._thread.submit(self._count, self._batch)
        self._batch, self._size = [], 0

    def _wait(self) -> None:
        if self._counting is not None:
            self._counting.result()

    def _count(self, batch: list[bytes]) -> None:
        raw = b"".join([*batch, bytes(_SHORT)])
        text = np.frombuffer(raw, dtype=np.uint8)
        eights = np.ndarray(
            len(raw) - 7, dtype="<i8", buffer=raw, strides=(1,)
        )  # the eight bytes from each on
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

    def _spill(self) -> None:
        import pyarrow
        from pyarrow import parquet

        if self.words == 0:
            return
        entries = np.flatnonzero(self._table[:, _COUNT])
        keys = _keys(self._table, self._arena, entries, 0)
        order = np.argsort(keys)
        entries = entries[order]
        _sort_equal(self._table, self._arena, entries, keys[order])
        most = len(_MARK) * (_SHORT * len(entries) + self._used)
        text, ends = np.empty(most, dtype=np.uint8), np.zeros(len(entries) + 1, dtype=np.int64)
        _spell(self._table, self._arena, entries, text, ends)
        buffers = (pyarrow.py_buffer(ends), pyarrow.py_buffer(text))
        columns = {
            "word": pyarrow.LargeStringArray.from_buffers(len(entries), *buffers),
            "count": self._table[entries, _COUNT],
            "documents": self._table[entries, _SEEN] >> 32,
        }
        path = self.prefix.with_name(f"{self.prefix.name}-{len(self.files)}.parquet")
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        # A dictionary of words that all differ would be made in vain.
        parquet.write_table(
            pyarrow.table(columns), beside, compression="lz4", use_dictionary=["count", "documents"]
        )
        beside.replace(path)
        self.files.append(path.name)
        self._clear(self.room)


def _aligned(entries: int) -> np.ndarray:
    """So many empty entries, none of which lies on two lines of the processor's cache."""
    raw = np.zeros(4 * entries + 8, dtype=np.int64)
    first = -raw.ctypes.data % 64 // 8
    return raw[first : first + 4 * entries].reshape(entries, 4)


@njit(nogil=True, cache=True)
def _tally(text, eights, ends, letters, separated, state, table, room, arena):
    """Count words from where `state` says until the text ends or there is no room for another section."""
    i, document, section, begun, words, used, _ = state
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
            rest = np.int64(0)
        slot = _slot(key, rest, len(table))
        while table[slot, _COUNT]:
            if table[slot, _KEY] == key:
                if short:
                    if table[slot, _REST] == rest:
                        break
                elif table[slot, _REST] and _same(text, start, i, arena, table[slot, _REST] - 1):
                    break
            slot += 1
            if slot == len(table):
                slot = 0
        if table[slot, _COUNT] == 0:
            if not short:
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
    state[0], state[1], state[2], state[3], state[4], state[5] = i, document, section, begun, words, used
    return outcome


@njit(inline="always")
def _first(n):
    """A mask for the first `n` bytes of eight, of all from 8 on."""
    return (np.int64(1) << 8 * n) - 1 if n < 8 else np.int64(-1)


@njit(inline="always")
def _slot(key, rest, size):
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
def _same(text, start, stop, arena, at):
    if stop - start != _long_size(arena, at):
        return False
    for k in range(stop - start):
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
    long = table[entry, _KEY] >> 56 == 0 and table[entry, _REST] != 0
    return table[entry, _REST] - 1 if long else np.int64(-1)


@njit(nogil=True, cache=True)
def _keys(table, arena, entries, depth):
    """Eight bytes of each word, from byte `depth` on, as numbers that sort as they do."""
    keys = np.empty(len(entries), dtype=np.int64)
    for n, entry in enumerate(entries):
        place = _place(table, entry)
        key = np.int64(0)
        if place < 0:
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
def _sort_equal(table, arena, entries, keys):
    """Sort those of `entries`, sorted by their first bytes (`keys`), that have these in common."""
    todo = [(np.int64(0), np.int64(8), keys)]
    while todo:
        begin, depth, keys = todo.pop()
        first = 0
        for n in range(1, len(keys) + 1):
            if n == len(keys) or keys[n] != keys[first]:
                if n - first > 1:
                    some = entries[begin + first : begin + n]
                    more = _keys(table, arena, some, depth)
                    order = np.argsort(more)
                    some[:] = some[order]
                    todo.append((begin + first, depth + 8, more[order]))
                first = n


@njit(nogil=True, cache=True)
def _spell(table, arena, entries, text, ends):
    """Write the words one after the other, with a ▁ for each space, and where each ends."""
    at = 0
    for n, entry in enumerate(entries):
        place = _place(table, entry)
        size = _long_size(arena, place) if place >= 0 else _SHORT
        for k in range(size):
            if place >= 0:
                byte = np.int64(arena[place + _HEADER + k])
            else:
                byte = table[entry, _KEY if k < 8 else _REST] >> 8 * (k & 7) & 0xFF
                if byte == 0:
                    break
            if byte == _SPACE:
                for mark in _MARK:
                    text[at] = mark
                    at += 1
            else:
                text[at] = byte
                at += 1
        ends[n + 1] = at


@njit(nogil=True, cache=True)
def _move(old, new):
    """Put the entries of one table into a larger one."""
    for entry in range(len(old)):
        if old[entry, _COUNT]:
            place = _place(old, entry)
            slot = _slot(old[entry, _KEY], np.int64(0) if place >= 0 else old[entry, _REST], len(new))
            while new[slot, _COUNT]:
                slot += 1
                if slot == len(new):
                    slot = 0
            new[slot] = old[entry]
