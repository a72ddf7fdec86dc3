"""Counting the words of a stream of documents, compiled: a hash table over bytes, in bounded memory.

Why not a dictionary: counting in Python takes as long as a quarter of tokenizing. This takes what reading
the files takes, and some 130 bytes for a word instead of 300.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numba import njit

from eeve_axolotl.tokenizer.words import BOUNDARY, Segmentation

SECTION = 1 << 18
"""A longer document counts as several, each of so many bytes: memory is bounded by words, not by documents."""

_BATCH = 4 << 20  # bytes of text handed to the compiled code at once
_SEPARATOR = b"\xff"  # in no UTF-8
_SPACE = ord(" ")
# Bytes for a word: two to four slots of 8, four columns of 8, its letters, and, while spilling, a sorted copy.
_PER_WORD, _LETTERS = 150, 16
_DONE, _FULL, _LONG = 0, 1, 2
_BEGIN, _COUNT, _DOCUMENTS, _SECTION = range(
    4
)  # columns: where its letters begin, counts, section last seen in


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
        self._clear(min(self.most, SECTION))

    def _clear(self, room: int) -> None:
        """An empty table with room for so many words."""
        self.words = 0
        # 32 bits of a word's hash and then its row + 1: a word is found with few looks into memory.
        self._slots = np.zeros(1 << (2 * room + 1).bit_length(), dtype=np.int64)
        self._rows = np.zeros((room + 1, 4), dtype=np.int64)
        self._arena = np.empty(_LETTERS * room, dtype=np.uint8)  # the words, one after the other

    def add(self, text: str) -> None:
        """Count a document's words."""
        if self.segmentation.exactly_spans:
            raw = "\n".join(self.segmentation.pieces(text)).encode("utf-8", "surrogatepass")
        else:
            raw = _SEPARATOR.join(
                word.encode("utf-8", "surrogatepass") for word in self.segmentation.words(text)
            )
        if raw:
            self._batch.append(raw)
            self._size += len(raw)
            if self._size >= _BATCH:
                self._count()

    def _count(self) -> None:
        text = np.frombuffer(b"".join(self._batch), dtype=np.uint8)
        ends = np.cumsum([len(raw) for raw in self._batch])
        self._batch, self._size = [], 0
        # Where the compiled code stands: byte, document, section and where that began, words, words to make room for.
        state = np.array([0, 0, self._section, -SECTION, self.words, 0], dtype=np.int64)
        outcome = None
        while outcome != _DONE:
            separated = not self.segmentation.exactly_spans
            outcome = _tally(text, ends, self.letters, separated, state, self._slots, self._rows, self._arena)
            self.words = int(state[4])
            if outcome == _LONG:
                self._arena = np.resize(self._arena, 2 * len(self._arena) + len(text))
            elif outcome == _FULL and self.words and len(self._rows) > self.most:
                self._spill()
                state[4] = 0
            elif outcome == _FULL:
                self._grow(max(min(4 * len(self._rows), self.most), int(state[5])))
        self._section = int(state[2])

    def _grow(self, room: int) -> None:
        slots, rows, arena, words = self._slots, self._rows, self._arena, self.words
        self._clear(room)
        self.words = words
        self._rows[: len(rows)] = rows
        if len(arena) > len(self._arena):
            self._arena = arena
        else:
            self._arena[: len(arena)] = arena
        _move(slots, self._slots)

    def close(self) -> None:
        """Count what has been added and write what is not on disk yet."""
        if self._batch:
            self._count()
        self._spill()

    def _spill(self) -> None:
        import pyarrow
        from pyarrow import compute, parquet

        n = self.words
        if n == 0:
            return
        begins = np.ascontiguousarray(self._rows[: n + 1, _BEGIN])
        words = pyarrow.LargeStringArray.from_buffers(
            n, pyarrow.py_buffer(begins), pyarrow.py_buffer(self._arena)
        )
        columns = {
            "word": compute.replace_substring(words, " ", BOUNDARY),
            "count": np.ascontiguousarray(self._rows[:n, _COUNT]),
            "documents": np.ascontiguousarray(self._rows[:n, _DOCUMENTS]),
        }
        path = self.prefix.with_name(f"{self.prefix.name}-{len(self.files)}.parquet")
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        parquet.write_table(pyarrow.table(columns).sort_by("word"), beside, compression="zstd")
        beside.replace(path)
        self.files.append(path.name)
        self._clear(len(self._rows) - 1)


@njit(nogil=True, cache=True)
def _tally(text, ends, letters, separated, state, slots, rows, arena):
    """Count words from where `state` says until the text ends or there is no room for another section."""
    i, document, section, begun, n, _ = state
    mask = len(slots) - 1
    outcome = _DONE
    while i < len(text):
        if i == ends[document]:
            document += 1
            begun = i - SECTION
        if i - begun >= SECTION:  # a new document or section: is there room for all its words?
            ahead = min(SECTION, ends[document] - i)
            if n + ahead // 2 + 1 > len(rows) - 1 or rows[n, _BEGIN] + ahead > len(arena):
                state[5] = n + ahead // 2 + 1
                outcome = _FULL
                break
            section += 1
            begun = i
        start = i
        value, found, i = _word(text, i, ends[document], letters, separated)
        if not found:
            continue
        slot = value & mask
        while True:
            row = (slots[slot] & 0xFFFFFFFF) - 1
            if row < 0:
                break
            if slots[slot] >> 32 == value and _same(
                text, start, i, arena, rows[row, _BEGIN], rows[row + 1, _BEGIN]
            ):
                break
            slot = (slot + 1) & mask
        if row < 0:
            begin = rows[n, _BEGIN]
            end = begin + i - start
            if end > len(arena):
                i = start
                outcome = _LONG
                break
            arena[begin:end] = text[start:i]
            row = n
            n += 1
            rows[n, _BEGIN] = end
            slots[slot] = value << 32 | n
            rows[row, _COUNT] = rows[row, _DOCUMENTS] = rows[row, _SECTION] = 0
        rows[row, _COUNT] += 1
        if rows[row, _SECTION] != section:
            rows[row, _SECTION] = section
            rows[row, _DOCUMENTS] += 1
    state[0], state[1], state[2], state[3], state[4] = i, document, section, begun, n
    return outcome


@njit(nogil=True, cache=True)
def _word(text, i, end, letters, separated):
    """Read on from byte `i`: a word's hash (31 bits), whether there was one, and the byte after it."""
    value = np.int64(-3750763034362895579)  # FNV-1a
    start = i
    if separated:
        while i < end and text[i] != 0xFF:
            value = (value ^ np.int64(text[i])) * np.int64(1099511628211)
            i += 1
        found = i > start
        i += not found
    else:
        while i < end and text[i] == _SPACE:
            value = (value ^ np.int64(text[i])) * np.int64(1099511628211)
            i += 1
        first = i
        while i < end:
            code, length = _character(text, i)
            if not letters[code]:
                if i == start:
                    i += length
                    first = i
                break
            value = (value ^ code) * np.int64(1099511628211)
            i += length
        found = i > first
    return (value ^ value >> 32) & 0x7FFFFFFF, found, i


@njit(nogil=True, cache=True)
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
def _same(text, start, stop, arena, begin, end):
    if stop - start != end - begin:
        return False
    for k in range(stop - start):
        if text[start + k] != arena[begin + k]:
            return False
    return True


@njit(nogil=True, cache=True)
def _move(old, new):
    """Put the entries of one table of slots into a larger one."""
    mask = len(new) - 1
    for entry in old:
        if entry:
            slot = (entry >> 32) & mask
            while new[slot]:
                slot = (slot + 1) & mask
            new[slot] = entry
