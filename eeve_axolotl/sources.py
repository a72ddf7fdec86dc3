"""Reading documents from a user's files: JSON lines, Parquet and plain text, compressed or not."""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from pydantic import Field

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.settings import Settings

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_KNOWN = (*_JSON_LINES, ".parquet", ".txt")


class Source(Settings):
    """One entry of a `corpus:` list: files, and where the text is in them."""

    path: str
    """A file, a directory, or a pattern with `*` (`**` goes into subdirectories)."""

    columns: list[str] = Field(default=["text"], min_length=1)
    """Columns that hold text; each non-empty one is a document. Plain text has none: a file is a document."""

    on_bad_line: Literal["fail", "skip"] = "fail"
    """What to do with a line that is not a JSON object."""

    def shards(self) -> list[Shard]:
        """The files, sorted by name: each can be read on its own.

        Raises EEVEError if nothing matches, or a file's kind is not known.
        """
        directory = Path(self.path).is_dir()
        names = glob.glob(f"{self.path}/**/*" if directory else self.path, recursive=True)
        files = sorted(Path(name) for name in names if Path(name).is_file())
        if directory:  # whatever else lies there is not text
            files = [file for file in files if _kind(file) in _KNOWN]
        if not files:
            raise EEVEError(f"the corpus {self.path} matches no file; give the path of your text")
        return [Shard(file, self) for file in files]


@dataclass(frozen=True)
class Document:
    """A text, where it stands (file, and line or row from 1), and the record's other fields."""

    text: str
    file: str
    line: int
    fields: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """One file of a source."""

    file: Path
    source: Source

    def documents(self) -> Iterator[Document]:
        """The file's documents in order.

        Raises EEVEError naming the file, and the line where there is one: not JSON, a missing column
        (naming those present), or a file that breaks off (saying how much was read).
        """
        kind = _kind(self.file)
        if kind == ".parquet":
            yield from self._parquet()
        elif kind in _JSON_LINES:
            yield from self._json_lines()
        elif kind == ".txt":
            yield Document("".join(text for _, text in self._lines()), str(self.file), 1)
        else:
            raise EEVEError(
                f"{self.file}: its kind is not known; name it {', '.join(_KNOWN)}, with .gz, .bz2, .xz or .zst after it"
            )

    def _json_lines(self) -> Iterator[Document]:
        for number, line in self._lines():
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError
            except ValueError:
                if self.source.on_bad_line == "skip":
                    continue
                raise EEVEError(
                    f"{self.file}, line {number}: not a JSON object; correct it, or set on_bad_line: skip"
                ) from None
            yield from self._of_record(record, number)

    def _parquet(self) -> Iterator[Document]:
        import pyarrow
        from pyarrow import parquet

        row = 0
        try:
            with parquet.ParquetFile(self.file) as table:
                for batch in table.iter_batches():
                    for record in batch.to_pylist():
                        row += 1
                        yield from self._of_record(record, row)
        except (pyarrow.ArrowException, OSError) as error:
            raise EEVEError(
                f"{self.file}: broken Parquet after {row:,} rows ({_first_line(error)})"
            ) from None

    def _of_record(self, record: dict, line: int) -> Iterator[Document]:
        for column in self.source.columns:
            if column not in record:
                raise EEVEError(
                    f"{self.file}, line {line}: no column {column!r}; there are {', '.join(map(repr, record))}: "
                    "set `columns`"
                )
            if record[column]:
                fields = {key: value for key, value in record.items() if key not in self.source.columns}
                yield Document(str(record[column]), str(self.file), line, fields)

    def _lines(self) -> Iterator[tuple[int, str]]:
        number = 0
        try:
            with self._open() as lines:
                for number, line in enumerate(lines, start=1):
                    yield number, line
        except (EOFError, OSError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise EEVEError(f"{self.file}: broken after {number:,} lines ({_first_line(error)})") from None

    def _open(self) -> IO[str]:
        if self.file.suffix == ".zst":
            import io

            import zstandard

            stream = zstandard.ZstdDecompressor().stream_reader(self.file.open("rb"))
            return io.TextIOWrapper(stream, encoding="utf-8")
        return _OPENERS.get(self.file.suffix, open)(self.file, "rt", encoding="utf-8")


def _kind(file: Path) -> str:
    """The ending that says what is in the file, beneath a compression's."""
    return Path(file.stem).suffix if file.suffix in (*_OPENERS, ".zst") else file.suffix


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
