"""How often each new token occurs in each document: computed once, kept sparse, read block by block.

One Parquet file per shard of documents, one row per document, one row group per block. A row says how
many bytes and tokens the document has under the extended tokenizer, and which new tokens it holds how
often. The choice of documents needs nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eeve_axolotl.corpus.arrays import array_of, numpy_of
from eeve_axolotl.corpus.kernels.gains import add_up
from eeve_axolotl.corpus.token_counter import TokenCounter
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import writing

BLOCK = 2048  # documents in a block: what the choice has in memory at a time

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the document in its file
        ("group", pa.int8()),
        ("held_out", pa.bool_()),
        ("key", pa.uint64()),  # of the document's text
        ("bytes", pa.int64()),
        ("tokens", pa.int64()),
        ("new_tokens", pa.int64()),
        ("ids", pa.list_(pa.int32())),  # new tokens of the document, 0 being the first new one
        ("counts", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True)
class Block:
    """Documents `start` to `start + len` of the whole corpus, as a sparse matrix of counts by rows.

    `ids[offsets[i]:offsets[i+1]]` are the new tokens of the block's document i, `counts` how often each occurs.
    """

    start: int
    offsets: np.ndarray
    ids: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Counts:
    """The counts of a whole corpus: small arrays of one number per document, and blocks read when asked for.

    Args:
        files: count files in the order of the corpus's shards; a missing or broken one raises EEVEError.
        memory: bytes of blocks that may stay in memory between two reads.
    """

    def __init__(self, files: Sequence[str | Path], memory: int):
        self.files = [str(file) for file in files]
        self._memory, self._held = memory, 0
        self._kept: OrderedDict[tuple[int, int, int], Block] = OrderedDict()
        self._places: list[tuple[int, int, int]] = []  # file, row group, first document
        sizes, self.first = [], [0]
        for number, file in enumerate(self.files):
            try:
                parquet = pq.ParquetFile(file)
            except (OSError, pa.ArrowException) as error:
                raise EEVEError(
                    f"{file} is not a finished file of counts ({error}); delete it and run again"
                ) from None
            start = self.first[-1]
            for group in range(parquet.num_row_groups):
                self._places.append((number, group, start))
                start += parquet.metadata.row_group(group).num_rows
            self.first.append(start)
            sizes.append(parquet.read([name for name in SCHEMA.names if name not in ("ids", "counts")]))
            parquet.close()
        table = pa.concat_tables(sizes) if sizes else SCHEMA.empty_table()
        self.row, self.group, self.held_out, self.key, self.bytes, self.tokens, self.new_tokens = (
            numpy_of(table[name])
            for name in ("row", "group", "held_out", "key", "bytes", "tokens", "new_tokens")
        )

    def __len__(self) -> int:
        """Number of documents."""
        return self.first[-1]

    def blocks(self, wanted: Callable[[int, int], bool] | None = None) -> Iterator[Block]:
        """The blocks in order; with `wanted`, a function of (start, end), only those for which it is true."""
        ends = [*(start for _, _, start in self._places[1:]), len(self)]
        for place, end in zip(self._places, ends, strict=False):
            if wanted is None or wanted(place[2], end):
                yield self._read(place)

    def _read(self, place: tuple[int, int, int]) -> Block:
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        number, group, start = place
        with pq.ParquetFile(self.files[number]) as parquet:
            table = parquet.read_row_group(group, columns=["ids", "counts"])
        lists, counts = table["ids"].combine_chunks(), table["counts"].combine_chunks()
        block = Block(
            start,
            numpy_of(lists.offsets),
            numpy_of(lists.values),
            numpy_of(counts.values),
        )
        self._kept[place] = block
        self._held += block.ids.nbytes + block.counts.nbytes + block.offsets.nbytes
        while self._held > self._memory and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._held -= old.ids.nbytes + old.counts.nbytes + old.offsets.nbytes
        return block

    def total(self, chosen: np.ndarray, new_tokens: int) -> np.ndarray:
        """Occurrences of each new token in the documents for which `chosen` (bool per document) is true."""
        total = np.zeros(new_tokens)
        for block in self.blocks(lambda start, end: bool(chosen[start:end].any())):
            here = chosen[block.start : block.start + len(block)]
            add_up(block.offsets, block.ids, block.counts, here, total)
        return total.astype(np.int64)


def write_counts(path: str | Path, counter: TokenCounter, documents: Iterable[dict[str, Any]]) -> None:
    """Count every document into the file `path`, block by block.

    Args:
        path: written beside and moved into place when whole.
        counter: the extended tokenizer.
        documents: each with `text`, `row`, `group`, `held_out` and `key`.
    """
    batch: list[dict[str, Any]] = []
    waiting: list[pa.Table] = []
    rows = 0
    with (
        writing(Path(path)) as unfinished,
        pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer,
    ):

        def count() -> None:
            columns = counter.count([document["text"] for document in batch])
            columns |= {
                field.name: array_of([document[field.name] for document in batch], field.type)
                for field in list(SCHEMA)[:4]
            }
            waiting.append(pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA))
            batch.clear()

        def flush() -> None:
            if waiting:
                writer.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=BLOCK)
                waiting.clear()

        for document in documents:
            batch.append(document)
            rows += 1
            if len(batch) == 64:  # what the tokenizer has in memory at a time
                count()
            if rows % BLOCK == 0:
                flush()
        if batch:
            count()
        flush()
