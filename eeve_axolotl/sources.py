"""Reading documents: files (JSON lines, Parquet, plain text, compressed or not) and Hugging Face datasets."""

from __future__ import annotations

import glob
import json
import lzma
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import orjson
import pyarrow
from isal import igzip, igzip_lib
from pyarrow import parquet
from pydantic import Field, model_validator

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.settings import Settings

if TYPE_CHECKING:
    from datasets import IterableDataset

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_KNOWN = (*_JSON_LINES, ".parquet", ".txt")
_COMPRESSED = (".gz", ".bz2", ".zst", ".xz")
_CHUNK, _AHEAD = 1 << 20, 4  # bytes read at once, and how many such chunks before they are asked for
_BLOCK = 16  # records: what parts of a file take in turn


class Source(Settings):
    """One entry of a `corpus:` list: files, or with `split` a Hugging Face dataset, and where the text is in them."""

    path: str
    """A file, a directory, or a pattern with `*` (`**` goes into subdirectories); with `split` a dataset."""

    columns: list[str] = Field(default=["text"], min_length=1)
    """Columns that hold text; each non-empty one is a document. Plain text has none: a file is a document."""

    by_line: bool = False
    """Of plain text each line is a document. A large file without it is in memory as a whole."""

    on_bad_line: Literal["fail", "skip"] = "fail"
    """What to do with a line that is not a JSON object."""

    split: str | None = None
    """`path` is a Hugging Face dataset, streamed (a hub name, or a directory), and this its split."""

    name: str | None = None
    """The dataset's configuration, e.g. kor_Hang of HuggingFaceFW/fineweb-2."""

    revision: str | None = None
    """The dataset's revision on the hub: a commit, so that a later run reads the same text."""

    documents: int | None = Field(default=None, gt=0)
    """Read at most so many documents of the dataset, shared out evenly over its files."""

    @model_validator(mode="after")
    def _dataset(self) -> Source:
        if self.split is None and (self.name or self.revision or self.documents):
            raise ValueError(
                "`name`, `revision` and `documents` are for Hugging Face datasets; give `split` too, or leave them out"
            )
        return self

    def shards(self) -> list[Shard] | list[DatasetShard]:
        """What can be read on its own: the files, sorted by name, or the dataset's shards.

        Raises EEVEError if there is nothing.
        """
        if self.split is not None:
            count = _load(self)[0].num_shards
            return [DatasetShard(self, index, count) for index in range(count)]
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


class _Readable:
    """What shards of both kinds do, given where they are (`place`) and their numbered records (`_records`)."""

    source: Source
    place: str

    def documents(self) -> Iterator[Document]:
        """The shard's documents in order.

        Raises EEVEError naming the place, and the line where there is one: not JSON, a missing column
        (naming those present), or something that breaks off (saying how much was read).
        """
        for line, text, record in self._texts():
            fields = {key: value for key, value in record.items() if key not in self.source.columns}
            yield Document(text, self.place, line, fields)

    def texts(self, number: int = 0, of: int = 1) -> Iterator[str]:
        """The documents' texts, without the records' other fields: of every `of`-th block, from block `number` on."""
        return (text for _, text, _ in self._texts(number, of, self.source.columns))

    def _texts(
        self, number: int = 0, of: int = 1, only: list[str] | None = None
    ) -> Iterator[tuple[int, str, dict]]:
        for line, record in self._records(number, of, only):
            for column in self.source.columns:
                try:
                    value = record[column]
                except KeyError:
                    raise EEVEError(
                        f"{self.place}, line {line}: no column {column!r}; there are {', '.join(map(repr, record))}: "
                        "set `columns`"
                    ) from None
                if value:
                    yield line, value if isinstance(value, str) else str(value), record


@dataclass(frozen=True)
class Shard(_Readable):
    """One file of a source."""

    file: Path
    source: Source

    @property
    def place(self) -> str:
        """What messages call it."""
        return str(self.file)

    def size(self) -> int:
        """The file's bytes."""
        return self.file.stat().st_size

    def identity(self) -> list:
        """What its documents depend on: the file, its size and time of change, and how it is read."""
        stat = self.file.stat()
        how = self.source.model_dump(mode="json", exclude={"path"})
        return [str(self.file.resolve()), stat.st_size, stat.st_mtime_ns, how]

    def _texts(
        self, number: int = 0, of: int = 1, only: list[str] | None = None
    ) -> Iterator[tuple[int, str, dict]]:
        if _kind(self.file) == ".txt":
            yield from ((line, text, {}) for line, text in self._plain_text(number, of) if text)
        else:
            yield from super()._texts(number, of, only)

    def _records(self, number: int, of: int, only: list[str] | None) -> Iterator[tuple[int, dict]]:
        kind = _kind(self.file)
        if kind == ".parquet":
            return self._parquet(number, of, only)
        if kind in _JSON_LINES:
            return self._json_lines(number, of)
        raise EEVEError(
            f"{self.file}: its kind is not known; name it {', '.join(_KNOWN)}, with .gz, .bz2, .xz or .zst after it"
        )

    def _json_lines(self, number: int, of: int) -> Iterator[tuple[int, dict]]:
        for n, line in self._lines():
            if n // _BLOCK % of != number:
                continue
            try:
                record = orjson.loads(line)
            except (
                ValueError
            ):  # it is strict: numbers like NaN and halves of surrogate pairs are JSON to Python
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.decode())
                except ValueError:
                    record = None
            if isinstance(record, dict):
                yield n, record
            elif self.source.on_bad_line == "fail":
                raise EEVEError(
                    f"{self.file}, line {n}: not a JSON object; correct it, or set on_bad_line: skip"
                )

    def _parquet(self, number: int, of: int, only: list[str] | None) -> Iterator[tuple[int, dict]]:
        row = 0
        try:
            with parquet.ParquetFile(self.file) as table:
                # All of them where one is missing: the message names what there is.
                present = set(only or ()) <= set(table.schema_arrow.names)
                for n, batch in enumerate(table.iter_batches(1024, columns=only if present else None)):
                    if n % of != number:
                        row += batch.num_rows
                        continue
                    for record in batch.to_pylist():
                        row += 1
                        yield row, record
        except (pyarrow.ArrowException, OSError) as error:
            raise EEVEError(
                f"{self.file}: broken Parquet after {row:,} rows ({_first_line(error)})"
            ) from None

    def _plain_text(self, number: int, of: int) -> Iterator[tuple[int, str]]:
        lines = self._lines()
        n = 0
        try:
            if self.source.by_line:
                for n, line in lines:
                    if n // _BLOCK % of == number:
                        yield n, line.decode().rstrip("\r")
            elif number == 0:
                text = b"\n".join(line for _, line in lines).decode()
                yield 1, text.replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise EEVEError(f"{self.file}: no UTF-8 after {max(0, n - 1):,} lines ({error})") from None

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The file's lines with their numbers from 1; what follows the last line's end is one too."""
        number, pieces = 0, []
        try:
            with self._open() as stream, ThreadPoolExecutor(1) as ahead:
                # Decompressing takes as long as what is done with the text: the next chunks are read meanwhile.
                reading = deque(ahead.submit(stream.read, _CHUNK) for _ in range(_AHEAD))
                while chunk := reading.popleft().result():
                    reading.append(ahead.submit(stream.read, _CHUNK))
                    first, *others = chunk.split(b"\n")
                    pieces.append(first)
                    if others:
                        *lines, rest = b"".join(pieces), *others
                        pieces = [rest]
                        for line in lines:
                            number += 1
                            yield number, line
                yield number + 1, b"".join(pieces)
        except (EOFError, OSError, lzma.LZMAError, igzip_lib.error) as error:
            raise EEVEError(f"{self.file}: broken after {number:,} lines ({_first_line(error)})") from None

    def _open(self) -> IO[bytes]:
        # None of them holds Python up. Arrow has nothing for .xz, and ISA-L is twice as fast with .gz.
        opens = {".xz": lzma.open, ".gz": igzip.open}
        return opens.get(self.file.suffix, pyarrow.input_stream)(str(self.file))


@dataclass(frozen=True)
class DatasetShard(_Readable):
    """One of `count` shards of a streamed Hugging Face dataset."""

    source: Source
    index: int
    count: int

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.source.path}:{self.source.name or 'default'}:{self.source.split}:{self.index}"

    def size(self) -> int:
        """0: how many bytes it has is not known before it is read."""
        return 0

    def identity(self) -> list:
        """What its documents depend on: the dataset's files, as far as they are known, and how it is read."""
        return [self.index, self.count, _load(self.source)[1], self.source.model_dump(mode="json")]

    def _records(self, number: int, of: int, only: list[str] | None) -> Iterator[tuple[int, dict]]:
        row = 0
        try:
            data = _load(self.source)[0].shard(self.count, self.index)
            if self.source.documents:
                data = data.take(-(-self.source.documents // self.count))
            for row, record in enumerate(data, start=1):
                if row // _BLOCK % of == number:
                    yield row, record
        except EEVEError:
            raise
        except Exception as error:  # whatever datasets, fsspec and the network raise
            raise EEVEError(f"{self.place}: broke off after row {row:,} ({_first_line(error)})") from None


def _load(source: Source) -> tuple[IterableDataset, str]:
    """A dataset's split as `datasets` streams it, and what tells its versions apart."""
    from datasets import load_dataset_builder, load_from_disk

    try:
        if (Path(source.path) / "state.json").exists() or (Path(source.path) / "dataset_dict.json").exists():
            data = load_from_disk(source.path)
            data = data[source.split] if isinstance(data, dict) else data
            return data.to_iterable_dataset(), data._fingerprint
        builder = load_dataset_builder(source.path, source.name, revision=source.revision)
        files = (builder.config.data_files or {}).get(source.split, [])
        version = str([list(map(str, files)), getattr(files, "origin_metadata", [])])
        return builder.as_streaming_dataset(split=source.split), version
    except Exception as error:  # a dozen kinds, all of them about the name, the configuration or the network
        raise EEVEError(
            f"the dataset {source.path} cannot be read ({_first_line(error)}); correct path, name or split"
        ) from None


def _kind(file: Path) -> str:
    """The ending that says what is in the file, beneath a compression's."""
    return Path(file.stem).suffix if file.suffix in _COMPRESSED else file.suffix


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
