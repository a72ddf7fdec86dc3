"""Counting the words of a stream of documents: a compiled hash table, in bounded memory.

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
from eeve_axolotl.tokenizer.words import BOUNDARY, Segmentation

_BATCH = 1 << 19  # characters of text handed to the compiled code at once
_WAITING = 3  # such batches, at most
_SEPARATOR = "\udfff"  # half a surrogate pair, which is in no word: after each word or document
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
        self.alphabet = _alphabet(segmentation)
        self.bytes = 0  # of the documents in UTF-8; right once closed
        self._batch: list[str] = []
        self._size = self._section = 0
        self._thread = ThreadPoolExecutor(1)
        self._counting: deque[Future] = deque()
        self._clear(min(self.most, 2 * kernels.SECTION))  # words: enough for some 50 MB of text

    def _clear(self, room: int) -> None:
        """An empty table with room for so many words."""
        self.room = room
        self.words = self._used = 0  # words, and symbols in the arena
        self._table = _empty_table(room * 8 // 5 + 1)
        kind = self.alphabet.symbols.dtype
        self._arena = np.empty(max(_LONG_BYTES // kind.itemsize * room, 2 * kernels.SECTION), dtype=kind)

    def add(self, text: str) -> None:
        """Count a document's words."""
        cut = self.segmentation.pieces if self.segmentation.exactly_spans else self.segmentation.words
        raw = _SEPARATOR.join(cut(text))
        # Those of `raw` are added when it is counted.
        if raw.endswith(text):  # nearly always, after a space
            self.bytes -= _bytes(raw[: len(raw) - len(text)])
        else:
            self.bytes += _bytes(text) - _bytes(raw)
        if raw:
            self._batch.append(raw)
            self._size += len(raw)
            if self._size >= _BATCH:
                self._hand_over()

    def _hand_over(self) -> None:
        """Give the batch to the thread, when that has few others left."""
        self._wait(_WAITING)
        text = _SEPARATOR.join([*self._batch, ""]).encode("utf-32-le", "surrogatepass")
        ends = np.cumsum([len(raw) + 1 for raw in self._batch])
        self._counting.append(self._thread.submit(self._count, np.frombuffer(text, dtype="<u4"), ends))
        self._batch, self._size = [], 0

    def _wait(self, most: int = 0) -> None:
        """Until no more than `most` batches are left to count."""
        while len(self._counting) > most:
            self.bytes += self._counting.popleft().result()

    def _count(self, text: np.ndarray, ends: np.ndarray) -> int:
        """Count the words of documents, given as code points; returns how many bytes they have."""
        # Where the compiled code stands: character, document, section and where that began, words, how much of
        # the arena, and words to make room for.
        state = np.array([0, 0, self._section, -kernels.SECTION, self.words, self._used, 0], dtype=np.int64)
        outcome = None
        while outcome != kernels.DONE:
            outcome = kernels.count(text, ends, self.alphabet, state, self._table, self.room, self._arena)
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
        return kernels.utf8_size(text) - len(ends) * _bytes(_SEPARATOR)

    def _grow(self, room: int) -> None:
        table, arena, words, used = self._table, self._arena, self.words, self._used
        self._clear(room)
        self.words, self._used = words, used
        if len(arena) > len(self._arena):
            self._arena = arena
        else:
            self._arena[: len(arena)] = arena
        kernels.move(table, self._table, self.alphabet)

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
        how = {"compression": "lz4", "use_dictionary": ["count", "documents"], "write_statistics": False}
        with ThreadPoolExecutor(1) as ahead, parquet.ParquetWriter(beside, _SCHEMA, **how) as writer:
            for part in ahead.map(self._spelled, *zip(*self._parts(), strict=True)):
                writer.write_table(part)
        beside.replace(path)
        self.files.append(path.name)

    def _parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Parts of the table, each sorted after the one before and in itself by the first symbols of its words.

        A part is where its entries are in the table, and those symbols as numbers.
        """
        entries, keys = kernels.entries(self._table, self._arena, self.words, self.alphabet)
        order = np.argsort(keys)
        entries, keys = entries[order], keys[order]
        others = np.flatnonzero(keys[1:] != keys[:-1]) + 1
        step = np.searchsorted(others, np.arange(_ROW_GROUP, len(keys), _ROW_GROUP))
        starts = others[step[step < len(others)]]
        return list(zip(np.split(entries, starts), np.split(keys, starts), strict=True))

    def _spelled(self, entries: np.ndarray, keys: np.ndarray) -> pyarrow.Table:
        """The words and counts of a part, sorted."""
        rows = np.take(self._table, entries, axis=0)  # from here on, memory is read in order
        entries = np.arange(len(rows))
        kernels.sort_equal(rows, self._arena, entries, keys, self.alphabet)
        text, ends = kernels.spell(rows, self._arena, entries, self.alphabet)
        buffers = (pyarrow.py_buffer(ends), pyarrow.py_buffer(text))
        columns = {
            "word": pyarrow.LargeStringArray.from_buffers(len(entries), *buffers),
            "count": rows[entries, kernels.COUNT],
            "documents": rows[entries, kernels.SEEN] >> 32,
        }
        return pyarrow.table(columns, _SCHEMA)


def _alphabet(segmentation: Segmentation) -> kernels.Alphabet:
    """The characters of words; where they are letters after boundaries, a space in the text is a boundary."""
    if segmentation.exactly_spans:
        return kernels.alphabet(segmentation.characters(), ord(BOUNDARY), ord(" "))
    return kernels.alphabet(segmentation.characters())


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _empty_table(entries: int) -> np.ndarray:
    """So many empty entries, in memory of their own: of a thread's malloc it would not go back to the system."""
    memory = mmap.mmap(-1, 32 * entries, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.int64).reshape(entries, 4)
