"""Adding up partial counts, within a memory limit."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import parquet

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.files import read_json_if_there, write_json, writing
from eeve_axolotl.tokenizer.counting.parts import Mark, disk_errors
from eeve_axolotl.tokenizer.counting.table import SCHEMA

if TYPE_CHECKING:
    import duckdb


def merge(directory: Path, marks: Sequence[Mark], memory_mb: int, threads: int) -> Path:
    """Add up the partial counts of `marks` into the table, sorted by word; returns its path.

    A table that was merged from the same marks is left as it is. Raises EEVEError where memory or disk run out.
    """
    path, note = directory / "words.parquet", directory / "words.json"
    made_of = identity(marks)
    if path.exists() and note_in(note) == made_of:
        return path
    files = [directory / "words" / name for mark in marks for name in mark.parquet]
    with disk_errors(directory):
        note.unlink(missing_ok=True)
        with writing(path) as unfinished:
            if len(files) == 1:  # sorted, each word once
                shutil.copyfile(files[0], unfinished)
            elif not files:
                parquet.write_table(SCHEMA.empty_table(), unfinished)
            else:
                _add_up(files, unfinished, directory, memory_mb, threads)
        write_json(note, made_of)
    return path


def identity(marks: Sequence[Mark]) -> list[dict]:
    """What counts are made of, as JSON has it."""
    return [{**asdict(mark), "parquet": list(mark.parquet)} for mark in marks]


def note_in(path: Path) -> object:
    """What a table's note says that it was made from; None where that cannot be read: it is made again."""
    try:
        return read_json_if_there(path)
    except EEVEError:
        return None


def _add_up(files: Sequence[Path], table: Path, directory: Path, memory_mb: int, threads: int) -> None:
    """Write the sums of `files` to `table`."""
    sums = "word, sum(count)::BIGINT AS count, sum(documents)::BIGINT AS documents"
    with adding_up(directory, memory_mb, threads) as connection:
        partial = connection.read_parquet([str(file) for file in files])
        partial.aggregate(sums, "word").order("word").write_parquet(str(table), compression="zstd")


@contextlib.contextmanager
def adding_up(directory: Path, memory_mb: int, threads: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Gives a DuckDB connection that keeps to a memory limit; what does not fit goes to `directory` meanwhile.

    Raises EEVEError where memory or disk run out.
    """
    import duckdb

    scratch = directory / "merge"
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": str(scratch),
        "threads": threads,
    }
    try:
        with duckdb.connect(config=settings) as connection:
            yield connection
    except duckdb.OutOfMemoryException:
        raise EEVEError(
            f"memory_mb: {memory_mb} is too little to merge the counts; raise it, or make room in {directory}"
        ) from None
    except duckdb.IOException as error:
        raise EEVEError(
            f"{directory}: the merge of the counts could not read or write there "
            f"({str(error).splitlines()[0]}); make room, or set work_directory"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
