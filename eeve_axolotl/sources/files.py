"""Text in files: JSON lines, Parquet and plain text, compressed or not."""

from __future__ import annotations

import json
import lzma
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import orjson
import pyarrow
from isal import igzip, igzip_lib
from pyarrow import parquet

from eeve_axolotl import inputs
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources.beginnings import BOM, check_beginning, check_packed
from eeve_axolotl.sources.shard import TURN, Record, Shard, SourceKeys, first_line

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_KINDS = (*_JSON_LINES, ".parquet", ".txt")
_COMPRESSED = (".gz", ".bz2", ".zst", ".xz")
# What the readers of compressed files raise. isal's stub calls its class of errors an error.
_BROKEN = (EOFError, OSError, lzma.LZMAError, cast("type[Exception]", igzip_lib.error))
_CHUNK, _AHEAD = 1 << 20, 4  # bytes read at once, and how many such chunks before they are asked for
_ROWS = 1024  # of a Parquet file, in memory at a time: also what is a reader's turn there


def is_text(file: Path) -> bool:
    """Whether a file is named like one that can be read here."""
    return _kind(file) in _KINDS


def as_what() -> str:
    """What files must be named and hold to be read here."""
    return (
        f"text is read from {', '.join(_KINDS)}, with .gz, .bz2, .xz or .zst after it or not: write a table (CSV, Excel, "
        "Arrow) as Parquet or JSON lines, and unpack archives"
    )


@dataclass(frozen=True)
class FileShard(Shard):
    """One file of a source."""

    file: Path
    source: SourceKeys
    told: Path | None = field(default=None, compare=False)
    """Where to write how many of its bytes are read, for whoever watches."""

    @property
    def place(self) -> str:
        """What messages call it."""
        return str(self.file)

    def size(self) -> int:
        """The file's bytes."""
        return self.file.stat().st_size

    def telling(self, place: Path) -> FileShard:
        """The same, but while it is read it writes into the file `place` how many of its bytes are."""
        return replace(self, told=place)

    def identity(self) -> list[Any]:
        """What its documents depend on: the file, its content, and how it is read."""
        how = self.source.model_dump(mode="json", exclude={"path"})
        return [str(self.file.resolve()), inputs.of_file(self.file), how]

    def _texts(
        self, number: int = 0, of: int = 1, only: list[str] | None = None
    ) -> Iterator[tuple[int, str, Record]]:
        if _kind(self.file) == ".txt":
            yield from ((line, text, {}) for line, text in self._plain_text(number, of) if text)
        else:
            yield from super()._texts(number, of, only)

    def _records(self, number: int, of: int, only: list[str] | None) -> Iterator[tuple[int, Record]]:
        kind = _kind(self.file)
        if kind == ".parquet":
            return self._parquet(number, of, only)
        if kind in _JSON_LINES:
            return self._json_lines(number, of)
        raise EEVEError(f"{self.file}: its kind is not known; {as_what()}")

    def _json_lines(self, number: int, of: int) -> Iterator[tuple[int, Record]]:
        for n, line in self._lines():
            if n // TURN % of != number:
                continue
            line = line.removeprefix(BOM)  # where files were put one after the other, not at the start alone
            try:
                record = orjson.loads(line)
            except ValueError:
                # orjson is strict: numbers like NaN and halves of surrogate pairs are JSON to Python alone.
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
                    f"{self.file}, line {n}: not a JSON object{_why_not(line)}; correct it, or set on_bad_line: skip"
                )

    def _parquet(self, number: int, of: int, only: list[str] | None) -> Iterator[tuple[int, Record]]:
        row = 0
        try:
            # Without `pre_buffer`, which keeps all that was read of the file until its end.
            with parquet.ParquetFile(self.file, pre_buffer=False) as table:
                # All of them where one is missing: the message names what there is.
                present = set(only or ()) <= set(table.schema_arrow.names)
                for n, batch in enumerate(table.iter_batches(_ROWS, columns=only if present else None)):
                    if n % of != number:
                        row += batch.num_rows
                        continue
                    self._tell(self.size() * row // max(1, table.metadata.num_rows))
                    for record in batch.to_pylist():
                        row += 1
                        yield row, record
        except (pyarrow.ArrowException, OSError) as error:
            raise EEVEError(f"{self.file}: broken Parquet after {row:,} rows ({first_line(error)})") from None

    def _plain_text(self, number: int, of: int) -> Iterator[tuple[int, str]]:
        lines = ((n, line.removeprefix(BOM) if n == 1 else line) for n, line in self._lines())
        n = 0
        try:
            if self.source.by_line:
                for n, line in lines:
                    if n // TURN % of == number:
                        yield n, line.decode().rstrip("\r")
            elif number == 0:
                text = b"\n".join(line for _, line in lines).decode()
                yield 1, text.replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise EEVEError(f"{self.file}: no UTF-8 after {max(0, n - 1):,} lines ({error})") from None

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The file's lines with their numbers from 1; what follows the last line's end is one too."""
        number = 0
        pieces: list[bytes] = []
        try:
            with self._open() as (stream, position), ThreadPoolExecutor(1) as ahead:
                # Decompressing takes as long as what is done with the text: the next chunks are read meanwhile.
                reading = deque(ahead.submit(stream.read, _CHUNK) for _ in range(_AHEAD))
                while chunk := reading.popleft().result():
                    if not number and not pieces:
                        check_beginning(self.file, chunk)
                    reading.append(ahead.submit(stream.read, _CHUNK))
                    if self.told:
                        self._tell(position())
                    first, *others = chunk.split(b"\n")
                    pieces.append(first)
                    if others:
                        *lines, rest = b"".join(pieces), *others
                        pieces = [rest]
                        for line in lines:
                            number += 1
                            yield number, line
                yield number + 1, b"".join(pieces)
        except _BROKEN as error:
            raise EEVEError(f"{self.file}: broken after {number:,} lines ({first_line(error)})") from None

    def _tell(self, position: int) -> None:
        if self.told:
            with suppress(OSError):  # a full disk will be told by what is worth more
                self.told.write_text(str(position))

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
        """The text's bytes, and what says how many of the file's own are read."""
        ending = self.file.suffix.lower()
        if ending in _COMPRESSED:
            check_packed(self.file)
        # None of them holds Python up. Arrow has nothing for .xz, and ISA-L is twice as fast with .gz.
        if ending in (".xz", ".gz"):
            unpacks = lzma.open if ending == ".xz" else igzip.open
            with self.file.open("rb") as raw, unpacks(raw) as stream:
                # Not raw.tell: another thread reads.
                yield cast(IO[bytes], stream), lambda: os.lseek(raw.fileno(), 0, os.SEEK_CUR)
        else:
            packed = {".bz2": "bz2", ".zst": "zstd"}.get(ending)
            with pyarrow.OSFile(str(self.file)) as raw:
                if packed is None:
                    yield raw, raw.tell
                    return
                with pyarrow.CompressedInputStream(raw, packed) as stream:
                    yield stream, raw.tell


def _kind(file: Path) -> str:
    """The ending that says what is in the file, beneath a compression's, in small letters."""
    ending = file.suffix.lower()
    return Path(file.stem).suffix.lower() if ending in _COMPRESSED else ending


def _why_not(line: bytes) -> str:
    """What a line is instead of a JSON object, as far as that is easy to say; begins with a comma."""
    try:
        start = line.decode().lstrip()
    except UnicodeDecodeError as error:
        return f", nor UTF-8 ({error.reason} at byte {error.start + 1:,})"
    if start.startswith("["):
        return ", but a list: write each of its objects on a line of its own (jq -c '.[]' does)"
    if start.rstrip() == "{":
        return ", but the beginning of one: write each object on one line (jq -c . does)"
    return ""
