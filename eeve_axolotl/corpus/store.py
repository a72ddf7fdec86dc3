"""Documents between two steps: Parquet files that are whole or not there, a part of them in memory at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eeve_axolotl.corpus.arrays import array_of, numpy_of, texts_in
from eeve_axolotl.files import writing
from eeve_axolotl.records import TALLY, read_there

AT_A_TIME = 1024  # documents that are in memory

Record = dict[str, Any]  # a row: what its values are, its schema says

DOCUMENTS = pa.schema(
    [
        ("text", pa.string()),
        ("group", pa.int8()),  # index into the mix
        ("origin", pa.string()),  # the file and line, or row, that it came from
        ("key", pa.uint64()),  # hash of the text: what decides about copies and random order
        ("bytes", pa.int64()),
    ]
)


class Writer:
    """Writes rows (dicts) of `schema` to `path`, which appears when the `with` block ends without an error."""

    def __init__(self, path: str | Path, schema: pa.Schema, dictionary: bool = True):
        """`dictionary`: write equal values once; without it a file is read three times as fast, and no larger.

        A text of a row may be bytes, in UTF-8.
        """
        self.path, self.schema, self._dictionary = Path(path), schema, dictionary
        self._open, self._rows = ExitStack(), list[Record]()

    def __enter__(self) -> Self:
        unfinished = self._open.enter_context(writing(self.path))
        file = pq.ParquetWriter(unfinished, self.schema, compression="zstd", use_dictionary=self._dictionary)
        self._file = self._open.enter_context(file)
        return self

    def write(self, row: Record) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) == AT_A_TIME:
            self._flush()

    def write_table(self, table: pa.Table) -> None:
        """Add the rows of a table of the schema."""
        self._flush()
        for begin in range(0, table.num_rows, AT_A_TIME):
            self._file.write_table(table.slice(begin, AT_A_TIME))

    def _flush(self) -> None:
        if self._rows:
            columns = ([row[field.name] for row in self._rows] for field in self.schema)
            arrays = [
                array_of(list(column), field.type) for column, field in zip(columns, self.schema, strict=True)
            ]
            self._file.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
            self._rows = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush()
        self._open.__exit__(kind, error, traceback)  # the file is closed, then has its name


def table_of(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet file, or the `columns` of it. Arrow's own `read_table` imports pandas, where there is one."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def records(
    path: str | Path, columns: list[str] | None = None, wanted: np.ndarray | None = None
) -> Iterator[Record]:
    """The rows of a Parquet file in order, or the `columns` of them; with `wanted` (bool per row) those where it is true.

    No column holds lists.
    """
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            rows = slice(start, start + file.metadata.row_group(group).num_rows)
            start = rows.stop
            if wanted is not None and not wanted[rows].any():
                continue
            for batch in file.iter_batches(rows.stop - rows.start, row_groups=[group], columns=columns):
                if wanted is not None:
                    batch = batch.filter(array_of(wanted[rows], pa.bool_()))
                values = (_values(column) for column in batch.columns)
                yield from map(
                    dict, map(zip, itertools.repeat(batch.schema.names), zip(*values, strict=True))
                )


def _values(column: pa.Array) -> list[Any]:
    """What is in a column, as Python has it."""
    if column.null_count:
        return column.to_pylist()
    return texts_in(column) if column.type == pa.string() else numpy_of(column).tolist()


class Tally:
    """Documents and bytes per group and reason, with a few examples of each: what a step did."""

    EXAMPLES, LENGTH = 3, 160

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, list[int]]] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, group: str, reason: str, size: int, example: str | None = None, times: int = 1) -> None:
        """Count a document of `size` bytes of `group` under `reason`."""
        entry = self.seen.setdefault(group, {}).setdefault(reason, [0, 0])
        entry[0] += times
        entry[1] += size
        if example is not None:
            examples = self.examples.setdefault(f"{group}: {reason}", [])
            if len(examples) < self.EXAMPLES:
                examples.append(" ".join(example.split())[: self.LENGTH])

    def as_json(self) -> dict[str, Any]:
        """For `write_json`."""
        return {"seen": self.seen, "examples": self.examples}

    @classmethod
    def merged(cls, files: Iterable[Path]) -> Tally:
        """The sum of what several tasks wrote."""
        whole = cls()
        for file in files:
            content = read_there(file, TALLY)
            for group, reasons in content["seen"].items():
                for reason, (documents, size) in reasons.items():
                    whole.add(group, reason, size, times=documents)
            for title, examples in content["examples"].items():
                kept = whole.examples.setdefault(title, [])
                kept.extend(examples[: cls.EXAMPLES - len(kept)])
        return whole
