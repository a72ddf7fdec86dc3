"""Documents between two steps: Parquet files written beside and moved into place, read a block at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eeve_axolotl.files import read_json

BLOCK = 1024  # documents that are in memory at a time

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

    def __init__(self, path: str | Path, schema: pa.Schema):
        self.path, self.schema = Path(path), schema
        self._beside = self.path.with_name(self.path.name + ".partial")
        self._rows: list[dict] = []

    def __enter__(self) -> Writer:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._beside, self.schema, compression="zstd")
        return self

    def write(self, row: dict) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) == BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
            self._rows = []

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            os.replace(self._beside, self.path)


def rows(path: str | Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a block in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BLOCK, columns=columns):
            yield from batch.to_pylist()


class Tally:
    """Documents and bytes per group and reason, with a few examples of each: what a step did."""

    EXAMPLES, LENGTH = 3, 160

    def __init__(self):
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

    def as_json(self) -> dict:
        """For `write_json`."""
        return {"seen": self.seen, "examples": self.examples}

    @classmethod
    def merged(cls, files: Iterable[Path]) -> Tally:
        """The sum of what several tasks wrote."""
        whole = cls()
        for file in files:
            content = read_json(file)
            for group, reasons in content["seen"].items():
                for reason, (documents, size) in reasons.items():
                    whole.add(group, reason, size, times=documents)
            for title, examples in content["examples"].items():
                kept = whole.examples.setdefault(title, [])
                kept.extend(examples[: cls.EXAMPLES - len(kept)])
        return whole
