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

SECTION = 1 << 20
"""A longer document counts as several, each of so many bytes: memory is bounded by words, not by documents."""

_BATCH = 4 << 20  # characters of text handed to the compiled code at once
_SEPARATOR = b"\xff"  # in no UTF-8
_SPACE = ord(" ")
# Bytes for a word: two to four slots of 4, five columns of 8, its letters, and, while spilling, a sorted copy.
_PER_WORD, _LETTERS = 150, 16
_DONE, _FULL, _LONG = 0, 1, 2


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
        self.most = max(memory // _PER_WORD, 2 * SECTION)
        self.letters = segmentation.letters()
        self._batch: list[bytes] = []
        self._size = 0
        self._clear(min(self.most, 2 * SECTION))

    def _clear(self, room: int) -> None:
        self.slots = np.zeros(1 << (2 * room).bit_length(), dtype=np.int32)  # 1 + the word's number
        self.offsets = np.zeros(room + 1, dtype=np.int64)
        self.hashes, self.counts, self.documents, self.last = (np.empty(room, dtype=np.int64) for _ in range(4))
        self.arena = np.empty(_LETTERS * room, dtype=np.uint8)  # the words, one after the other
        self.words = 0

    def add(self, text: str) -> None:
        """Count a document's words."""
        if self.segmentation.exactly_spans:
            raw = "\n".join(self.segmentation.pieces(text)).encode("utf-8", "surrogatepass")
        else:
            raw = _SEPARATOR.join(word.encode("utf-8", "surrogatepass") for word in self.segmentation.words(text))
        if raw:
            self._batch.append(raw)
            self._size += len(raw)
            if self._size >= _BATCH:
                self._count()

    def _count(self) -> None:
        text = np.frombuffer(b"".join(self._batch), dtype=np.uint8)
        ends = np.cumsum([len(raw) for raw in self._batch])
        self._batch, self._size = [], 0
        self.last[: self.words] = -1  # documents are numbered anew in each batch
        # Where the compiled code stands: byte, document, section and its beginning, words.
        state = np.array([0, 0, 0, -SECTION, self.words], dtype=np.int64)
        while True:
            outcome = _tally(
                text, ends, self.letters, not self.segmentation.exactly_spans, state,
                self.slots, self.offsets, self.hashes, self.counts, self.documents, self.last, self.arena,
            )  # fmt: skip
            self.words = int(state[4])
            if outcome == _DONE:
                return
            if outcome == _LONG:
                self.arena = np.resize(self.arena, 2 * len(self.arena))
            elif len(self.counts) < self.most:
                self._grow(min(4 * len(self.counts), self.most))
            else:
                self._spill()
                state[4] = 0

    def _grow(self, room: int) -> None:
        old, n = self.__dict__.copy(), self.words
        self._clear(room)
        self.words = n
        for name in ("hashes", "counts", "documents", "last"):
            getattr(self, name)[:n] = old[name][:n]
        self.offsets[: n + 1] = old["offsets"][: n + 1]
        used = self.offsets[n]
        if used > len(self.arena) // 2:
            self.arena = np.empty(2 * len(old["arena"]), dtype=np.uint8)
        self.arena[:used] = old["arena"][:used]
        _fill(self.slots, self.hashes[:n])

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
        buffers = [None, pyarrow.py_buffer(self.offsets[: n + 1]), pyarrow.py_buffer(self.arena)]
        words = pyarrow.LargeStringArray.from_buffers(n, buffers[1], buffers[2])
        words = compute.replace_substring(words, " ", BOUNDARY)
        columns = {"word": words, "count": self.counts[:n], "documents": self.documents[:n]}
        path = self.prefix.with_name(f"{self.prefix.name}-{len(self.files)}.parquet")
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        parquet.write_table(pyarrow.table(columns).sort_by("word"), beside, compression="zstd")
        beside.replace(path)
        self.files.append(path.name)
        self._clear(len(self.counts))


@njit(nogil=True, cache=True)
def _tally(text, ends, letters, separated, state, slots, offsets, hashes, counts, documents, last, arena):
    """Count words from where `state` says until the text ends or there is no room for another section."""
    i, document, section, begun, n = state
    mask = len(slots) - 1
    outcome = _DONE
    while i < len(text):
        if i == ends[document]:
            document += 1
            begun = i - SECTION
        if i - begun >= SECTION:  # a new document or section: is there room for all its words?
            if n + SECTION > len(counts) or offsets[n] + 2 * SECTION > len(arena):
                outcome = _FULL
                break
            section += 1
            begun = i
        end = ends[document]
        start = i
        value = np.int64(-3750763034362895579)  # FNV-1a
        if separated:
            while i < end and text[i] != 0xFF:
                value = (value ^ np.int64(text[i])) * np.int64(1099511628211)
                i += 1
            found = i > start
        else:
            while i < end and text[i] == _SPACE:
                value = (value ^ np.int64(text[i])) * np.int64(1099511628211)
                i += 1
            first = i
            while i < end:
                code, length = _character(text, i)
                if not letters[code]:
                    break
                for k in range(i, i + length):
                    value = (value ^ np.int64(text[k])) * np.int64(1099511628211)
                i += length
            found = i > first
        if not found:
            if i == start:
                i += 1 if separated else _character(text, i)[1]
            continue
        slot = (value ^ (value >> 32)) & mask
        while True:
            word = slots[slot] - 1
            if word < 0 or (hashes[word] == value and _same(text, start, i, arena, offsets[word], offsets[word + 1])):
                break
            slot = (slot + 1) & mask
        if word < 0:
            used = offsets[n]
            if used + i - start > len(arena):
                i = start
                outcome = _LONG
                break
            arena[used : used + i - start] = text[start:i]
            word = n
            n += 1
            offsets[n] = used + i - start
            slots[slot] = n
            hashes[word] = value
            counts[word] = 0
            documents[word] = 0
            last[word] = -1
        counts[word] += 1
        if last[word] != section:
            last[word] = section
            documents[word] += 1
    state[0], state[1], state[2], state[3], state[4] = i, document, section, begun, n
    return outcome


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
def _fill(slots, hashes):
    mask = len(slots) - 1
    for n in range(len(hashes)):
        slot = (hashes[n] ^ (hashes[n] >> 32)) & mask
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = n + 1
