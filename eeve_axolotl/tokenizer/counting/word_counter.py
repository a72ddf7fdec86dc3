"""Counting the words of a stream of documents: a compiled hash table, in bounded memory.

Why not a dictionary: counting in Python takes as long as a quarter of tokenizing. Here counting goes on in a
thread of its own while the next documents are read.
"""

from __future__ import annotations

import mmap
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from eeve_axolotl.files import writing
from eeve_axolotl.tokenizer.kernels import words as kernels
from eeve_axolotl.tokenizer.kernels.alphabet import Alphabet, alphabet
from eeve_axolotl.tokenizer.spelling import BOUNDARY
from eeve_axolotl.tokenizer.words.base import WordSplitter

_BATCH = 1 << 19  # characters of text handed to the compiled code at once
_WAITING = 3  # such batches, at most
_SEPARATOR = "\udfff"  # half a surrogate pair, which is in no word: after each word or document
# Bytes for a word: its entry at a load of 5/8, those of a long word, and, while they go to disk, its place and spelling.
_PER_WORD, _LONG_BYTES = 130, 8
_ROW_GROUP = 100_000  # words
_SCHEMA = pyarrow.schema(
    {"word": pyarrow.large_string(), "count": pyarrow.int64(), "documents": pyarrow.int64()}
)


class WordCounter:
    """Counts of words that go to disk when they have grown to a number of bytes."""

    files: list[str]
    """The names of the files that are written: Parquet, with columns word, count and documents, sorted by word."""

    bytes: int
    """The size of the documents in UTF-8; right once closed."""

    def __init__(self, splitter: WordSplitter, prefix: Path, memory: int):
        """
        Args:
            splitter: what a word is.
            prefix: partial counts go to `prefix`-0.parquet, `prefix`-1.parquet and so on.
            memory: bytes for the counts, about.
        """
        self.splitter = splitter
        self.prefix = prefix
        self.files = []
        self.bytes = 0
        self.alphabet = _alphabet(splitter)
        self._most = memory // _PER_WORD  # words in memory; one section's may be more
        self._batch: list[str] = []
        self._size = 0  # characters of the batch
        self._thread = ThreadPoolExecutor(1)
        self._counting: deque[Future[int]] = deque()
        self._progress = kernels.Progress()
        self._make_room(min(self._most, 2 * kernels.SECTION))  # words: enough for some 50 MB of text

    def _make_room(self, room: int) -> None:
        """An empty table with room for so many words."""
        self._room = room
        self._table = _empty_table(room * 8 // 5 + 1)
        kind = self.alphabet.symbols.dtype
        self._arena = np.empty(max(_LONG_BYTES // kind.itemsize * room, 2 * kernels.SECTION), dtype=kind)

    def add(self, text: str) -> None:
        """Count a document's words."""
        cut = self.splitter.pieces if self.splitter.exactly_spans else self.splitter.words
        raw = _SEPARATOR.join(cut(text))
        # The bytes of `raw` are added when it is counted.
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
        """Count the words of documents; returns how many bytes they have in UTF-8.

        Args:
            text: code points, uint32; the last of each document is a separator.
            ends: where each document ends in `text`, int64.
        """
        # Another text, the same table.
        now = self._progress._replace(character=0, document=0, begun=-kernels.SECTION)
        while True:
            outcome, now = kernels.count(text, ends, self.alphabet, now, self._table, self._room, self._arena)
            self._progress = now
            if outcome == kernels.DONE:
                return kernels.utf8_size(text) - len(ends) * _bytes(_SEPARATOR)
            if outcome == kernels.LONG:
                self._arena = np.resize(self._arena, 2 * len(self._arena) + 2 * len(text))
            elif now.words and self._room >= self._most:
                self._spill()
                self._make_room(self._room)
                now = now._replace(section=0, words=0, used=0)
            else:
                self._grow(max(min(2 * self._room, self._most), now.needed))

    def _grow(self, room: int) -> None:
        """Give the table room for so many words."""
        table, arena = self._table, self._arena
        self._make_room(room)
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
        """Write the table to a file of partial counts."""
        if self._progress.words == 0:
            return
        path = self.prefix.with_name(f"{self.prefix.name}-{len(self.files)}.parquet")
        # A dictionary of words that all differ would be made in vain.
        how = {"compression": "lz4", "use_dictionary": ["count", "documents"], "write_statistics": False}
        with writing(path) as unfinished, ThreadPoolExecutor(1) as ahead:
            with parquet.ParquetWriter(unfinished, _SCHEMA, **how) as writer:
                for part in ahead.map(self._spelled, *zip(*self._parts(), strict=True)):
                    writer.write_table(part)
        self.files.append(path.name)

    def _parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Parts of the table: a part's words all sort before those of the next.

        Of each part the entries (rows of the table) and the keys (their first symbols as numbers), both int64, sorted
        by the keys.
        """
        entries, keys = kernels.entries(self._table, self._arena, self._progress.words, self.alphabet)
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


def _alphabet(splitter: WordSplitter) -> Alphabet:
    """The characters of words; where words are boundaries and letters, a space in the text is a boundary."""
    if splitter.exactly_spans:
        return alphabet(splitter.characters(), ord(BOUNDARY), ord(" "))
    return alphabet(splitter.characters())


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _empty_table(entries: int) -> np.ndarray:
    """So many empty entries, int64 (entries, 4).

    They lie in memory of their own: what a thread's malloc has given does not go back to the system.
    """
    memory = mmap.mmap(-1, 32 * entries, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.int64).reshape(entries, 4)
