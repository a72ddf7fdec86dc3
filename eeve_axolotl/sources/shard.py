"""What can be read on its own, whatever it is: where the text is in a record, and the documents that follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.settings import Settings

Record = dict[str, Any]  # a row of a table or an object of JSON: its values are of any kind

TURN = 16  # records or lines in a row: where several readers share a shard, each takes so many in turn


class SourceKeys(Settings):
    """The keys of a source: what is read, and where the text is in it."""

    path: str
    """A file, a directory, or a pattern with `*` (`**` goes into subdirectories); with `split` a dataset."""

    columns: list[str] = Field(default=["text"], min_length=1)
    """Columns that hold text; each non-empty one is a document. Plain text has none: a file is a document."""

    by_line: bool = False
    """Of plain text each line is a document. A large file without it is in memory as a whole."""

    on_bad_line: Literal["fail", "skip"] = "fail"
    """What to do with a line that is not a JSON object, and with what is no text in a column of text."""

    split: str | None = None
    """`path` is a Hugging Face dataset, streamed (a hub name, or a directory), and this its split."""

    name: str | None = None
    """The dataset's configuration, e.g. kor_Hang of HuggingFaceFW/fineweb-2."""

    revision: str | None = None
    """The dataset's revision on the hub: a commit, so that a later run reads the same text."""

    documents: int | None = Field(default=None, gt=0)
    """Read at most so many documents of the dataset, shared out evenly over its files."""


@dataclass(frozen=True)
class Document:
    """A text, where it stands (file, and line or row from 1), and the record's other fields."""

    text: str
    file: str
    line: int
    fields: Record = field(default_factory=dict)


class Shard(ABC):
    """A part of a source that can be read on its own."""

    source: SourceKeys

    @property
    @abstractmethod
    def place(self) -> str:
        """What messages call it."""

    @abstractmethod
    def size(self) -> int:
        """Its bytes; 0 where they are not known before it is read."""

    def telling(self, place: Path) -> Shard:
        """The same, but while it is read it writes into the file `place` how many of its bytes are, if it can."""
        return self

    @abstractmethod
    def identity(self) -> list[Any]:
        """What its documents depend on, as JSON has it: which text it is, in which version, and how it is read."""

    @abstractmethod
    def _records(self, number: int, of: int, only: list[str] | None) -> Iterator[tuple[int, Record]]:
        """Records with their lines or rows from 1.

        Args:
            number, of: which of every `of` turns of records to read: turn `number`, counted from 0.
            only: the columns that are wanted; a record may have more. None wants all.
        """

    def documents(self) -> Iterator[Document]:
        """The shard's documents in order.

        Raises EEVEError naming the place, and the line where there is one: not JSON, a missing column
        (naming those present), or something that breaks off (saying how much was read).
        """
        for line, text, record in self._texts():
            fields = {key: value for key, value in record.items() if key not in self.source.columns}
            yield Document(text, self.place, line, fields)

    def texts(self, number: int = 0, of: int = 1) -> Iterator[str]:
        """The documents' texts, without the records' other fields: of every `of` turns, turn `number` (from 0).

        `texts(n, of)` for each `n` below `of` are together all texts, each once. Raises EEVEError as `documents` does.
        """
        return (text for _, text, _ in self._texts(number, of, self.source.columns))

    def _texts(
        self, number: int = 0, of: int = 1, only: list[str] | None = None
    ) -> Iterator[tuple[int, str, Record]]:
        for line, record in self._records(number, of, only):
            for column in self.source.columns:
                try:
                    value = record[column]
                except KeyError:
                    raise EEVEError(
                        f"{self.place}, line {line}: no column {column!r}; there are {', '.join(map(repr, record))}: "
                        "set `columns`"
                    ) from None
                try:
                    text = text_of(value)
                except ValueError as error:
                    if self.source.on_bad_line == "skip":
                        continue
                    raise EEVEError(
                        f"{self.place}, line {line}: the column {column!r} holds {error}; set `columns` to those that hold "
                        "text, write this one's text out, or set on_bad_line: skip"
                    ) from None
                if text:
                    yield line, text, record


_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def text_of(value: Any) -> str:
    """The text that a column holds: a string, or bytes that are one in UTF-8; nothing where it holds nothing.

    Raises ValueError saying what it holds instead.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("bytes that are no UTF-8") from None
    shown = str(value)
    shown = shown if len(shown) <= 40 else f"{shown[:40]} ..."
    raise ValueError(f"{_KINDS.get(type(value), f'a {type(value).__name__}')} ({shown}) and no text")


def first_line(error: Exception) -> str:
    """What a library's error says in its first line, or the error's kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
