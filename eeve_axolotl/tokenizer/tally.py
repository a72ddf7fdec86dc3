"""Counting the words of a stream of documents: a compiled hash table over bytes, in bounded memory.

Why not a dictionary: counting in Python takes as long as a quarter of tokenizing. Here counting goes on in a
thread of its own while the next documents are read.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from eeve_axolotl.tokenizer import kernels
from eeve_axolotl.tokenizer.words import Segmentation

_BATCH = 1 << 20  # bytes of text handed to the compiled code at once
_WAITING = 3  # such batches, at most
_SEPARATOR = b"\xff"  # in no UTF-8
# Bytes for a word: its entry at a load of 5/8, those of a long word, and, while spilling, its place and its spelling.
_PER_WORD, _LONG_BYTES = 130, 8
_ROW_GROUP = 100_000  # words
_SCHEMA = pyarrow.schema(
    {"word": pyarrow.large_string(), "count": pyarrow.int64(), "documents": pyarrow.int64()}
)


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
        self._clear(min(self.most, 2 * kernels.SECTION))  # words: enough for some 50 MB of text

    def _clear(self, room: int) -> None:
        """An empty table with room for so many words."""
        self.room = room
        self.words = self._used = 0  # words, and bytes of the arena
        self._table = _empty_table(room * 8 // 5 + 1)
        self._arena = np.empty(max(_LONG_BYTES * room, 8 * kernels.SECTION), dtype=np.uint8)

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
        raw = b"".join([*batch, bytes(kernels.SHORT)])
        text = np.frombuffer(raw, dtype=np.uint8)
        eights = _eights(raw)
        ends = np.cumsum([len(raw) for raw in batch])
        separated = not self.segmentation.exactly_spans
        # Where the compiled code stands: byte, document, section and where that began, words, bytes of the arena,
        # and words to make room for.
        state = np.array([0, 0, self._section, -kernels.SECTION, self.words, self._used, 0], dtype=np.int64)
        outcome = None
        while outcome != kernels.DONE:
            outcome = kernels.count(
                text, eights, ends, self.letters, separated, state, self._table, self.room, self._arena
            )
            self.words, self._used = int(state[4]), int(state[5])
            if outcome == kernels.LONG:
                self._arena = np.resize(self._arena, 2 * len(self._arena) + 2 * len(text))
            elif outcome == kernels.FULL and self.words and self.room >= self.most:
                self._spill()
                self._clear(self.room)
                state[2], state[4], state[5] = 0, 0, 0
            elif outcome == kernels.FULL:
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
        kernels.move(table, self._table)

    def close(self) -> None:
        """Count what has been added and write what is not on disk yet."""
        if self._batch:
            self._hand_over()
        self._wait()
        self._thread.shutdown()
        self._spill()
        del self._table, self._arena

    def _spill(self) -> None:
        if self.words == 0:
            return
        path = self.prefix.with_name(f"{self.prefix.name}-{len(self.files)}.parquet")
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        # A dictionary of words that all differ would be made in vain.
        how = {"compression": "lz4", "use_dictionary": ["count", "documents"]}
        with ThreadPoolExecutor(1) as ahead, parquet.ParquetWriter(beside, _SCHEMA, **how) as writer:
            for part in ahead.map(self._spelled, *zip(*self._parts(), strict=True)):
                writer.write_table(part)
        beside.replace(path)
        self.files.append(path.name)

    def _parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Parts of the table, each sorted after the one before and in itself by the first bytes of its words.

        A part is where its entries are in the table, and those bytes as numbers.
        """
        entries = np.flatnonzero(self._table[:, kernels.COUNT])
        keys = kernels.eight_bytes(self._table, self._arena, entries, 0)
        ranks = kernels.ranks(self._table, self._arena, entries)
        order = np.argsort(keys)
        order = order[np.argsort(ranks[order], kind="stable")]
        entries, keys, ranks = entries[order], keys[order], ranks[order]
        others = np.flatnonzero(keys[1:] != keys[:-1]) + 1
        step = np.searchsorted(others, np.arange(_ROW_GROUP, len(keys), _ROW_GROUP))
        starts = np.flatnonzero(ranks[1:] != ranks[:-1]) + 1
        starts = np.union1d(starts, others[step[step < len(others)]])
        return list(zip(np.split(entries, starts), np.split(keys, starts), strict=True))

    def _spelled(self, entries: np.ndarray, keys: np.ndarray) -> pyarrow.Table:
        """The words and counts of a part, sorted."""
        rows = np.take(self._table, entries, axis=0)  # from here on, memory is read in order
        entries = np.arange(len(rows))
        kernels.sort_equal(rows, self._arena, entries, keys)
        ends = np.zeros(len(entries) + 1, dtype=np.int64)
        np.cumsum(kernels.lengths(rows, self._arena, entries), out=ends[1:])
        text = np.empty(ends[-1] + kernels.SHORT, dtype=np.uint8)
        kernels.spell(rows, self._arena, entries, text, _eights(text), ends)
        buffers = (pyarrow.py_buffer(ends), pyarrow.py_buffer(text))
        columns = {
            "word": pyarrow.LargeStringArray.from_buffers(len(entries), *buffers),
            "count": rows[entries, kernels.COUNT],
            "documents": rows[entries, kernels.SEEN] >> 32,
        }
        return pyarrow.table(columns, _SCHEMA)


def _empty_table(entries: int) -> np.ndarray:
    """So many empty entries, in memory of their own: of a thread's malloc it would not go back to the system."""
    memory = mmap.mmap(-1, 32 * entries, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.int64).reshape(entries, 4)


def _eights(raw) -> np.ndarray:
    """A view of bytes: the eight from each on as a number."""
    return np.ndarray(len(raw) - 7, dtype="<i8", buffer=raw, strides=(1,))
