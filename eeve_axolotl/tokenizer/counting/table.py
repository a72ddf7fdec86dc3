"""The table of a corpus's words, as the rest of the room reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from eeve_axolotl.tokenizer.words.base import WordSplitter

SCHEMA = pyarrow.schema({"word": pyarrow.string(), "count": pyarrow.int64(), "documents": pyarrow.int64()})
"""The table's columns: a word in the vocabulary's alphabet, how often it occurs, how many documents have it."""

WORD_BYTES, LETTER_BYTES = 400, 200
"""What a word is reckoned to take in the trainer of the tokenizers library, and each of its letters besides.

benchmarks/tokenizer_trainer.py holds it against what is taken: less with few threads, up to a fifth more with 16.
"""


class WordTable:
    """A corpus's distinct words on disk, with how often each occurs and in how many documents."""

    def __init__(self, path: Path, splitter: WordSplitter, files: int, documents: int, bytes: int):
        """
        Args:
            path: a Parquet file with the columns of `SCHEMA`, each word once, sorted.
            splitter: what cut the text into these words.
            files, documents, bytes: of the corpus; bytes are those of UTF-8.
        """
        self.path = path
        self.splitter = splitter
        self.files = files
        self.documents = documents
        self.bytes = bytes
        self.distinct: int = parquet.read_metadata(path).num_rows
        self.weighed: WordTable | None = None
        """The same words with weights in place of counts, where the corpus has domains (weigh.py)."""
        self.scale = 1.0
        """What an occurrence weighs there in the mean."""

    def batches(self, rows: int = 20_000) -> Iterator[tuple[list[str], list[int]]]:
        """Words and their counts, so many at a time, in the order of the words."""
        for batch in self.record_batches(rows):
            yield batch["word"].to_pylist(), batch["count"].to_pylist()

    def record_batches(self, rows: int) -> Iterator[pyarrow.RecordBatch]:
        """Arrow's record batches with the columns of `SCHEMA`, so many rows at a time, in the order of the words."""
        # Without `pre_buffer`, which keeps all that was read of the file until its end.
        with parquet.ParquetFile(self.path, pre_buffer=False) as table:
            for batch in table.iter_batches(rows, columns=SCHEMA.names):
                yield batch.cast(SCHEMA)

    def spans(self, least: int = 1) -> Iterator[tuple[str, int]]:
        """The parts of the words that can become tokens, with the counts of the words. May repeat one.

        Args:
            least: leave out words that occur less often.
        """
        for words, counts in self.frequent(least):
            for word, count in zip(words, counts, strict=True):
                for span in self.splitter.spans(word):
                    yield span, count

    def frequent(self, least: int = 1) -> Iterator[tuple[list[str], list[int]]]:
        """Batches of words and counts, without the words that occur less than `least` times."""
        for words, counts in self.batches():
            kept = [(word, count) for word, count in zip(words, counts, strict=True) if count >= least]
            yield [word for word, _ in kept], [count for _, count in kept]

    def fitting(self, memory_mb: int | None) -> tuple[int, int]:
        """The lowest count, at most a million, whose words and all above it can be learned from in so much memory.

        Args:
            memory_mb: in MB, for the trainer of the tokenizers library; None for no limit.

        Returns (that count, how many words have it or more).
        """
        if memory_mb is None:
            return 1, self.distinct
        words, taken = np.zeros((2, 1_000_001), dtype=np.int64)
        for batch in self.record_batches(200_000):
            letters = self.splitter.spelling.lengths(batch["word"]).to_numpy().astype(np.int64)
            counts = np.minimum(batch["count"].to_numpy(), len(words) - 1)
            np.add.at(words, counts, 1)
            np.add.at(taken, counts, WORD_BYTES + LETTER_BYTES * letters)
        reach = taken[::-1].cumsum()[::-1]
        least = int(np.searchsorted(-reach, -memory_mb * 1_000_000))
        least = max(1, min(least, len(words) - 1))
        return least, int(words[least:].sum())
