"""The corpus's side of reading: which pieces of input there are, and a piece's texts.

Files and their errors are `eeve_axolotl.sources`; Hugging Face datasets are read by `datasets`, streaming.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import Document, Shard, Source

if TYPE_CHECKING:
    from eeve_axolotl.corpus.settings import CorpusSettings, GroupSettings


class CorpusSource(Source):
    """Files, as for the tokenizer, or with `split` a Hugging Face dataset, which is streamed."""

    split: str | None = None
    """`path` is a Hugging Face dataset (a hub name, or a directory that `datasets` loads), and this its split."""

    name: str | None = None
    """The dataset's configuration, e.g. kor_Hang of HuggingFaceFW/fineweb-2."""

    revision: str | None = None
    """The dataset's revision on the hub: a commit, so that a later run reads the same text."""

    documents: int | None = Field(default=None, gt=0)
    """Read at most so many documents of the dataset, shared out evenly over its files."""

    @model_validator(mode="after")
    def _dataset(self) -> CorpusSource:
        if self.split is None and (self.name or self.revision or self.documents):
            raise ValueError(
                "`name`, `revision` and `documents` are for Hugging Face datasets; give `split` too, or leave them out"
            )
        return self

    def pieces(self) -> list[Shard | DatasetShard]:
        """What can be read on its own. Raises EEVEError if there is nothing."""
        if self.split is None:
            return self.shards()
        count = _dataset(self).num_shards
        return [DatasetShard(self, index, count) for index in range(count)]


@dataclass(frozen=True)
class DatasetShard:
    """One of `count` shards of a streamed dataset."""

    source: CorpusSource
    index: int
    count: int

    def documents(self) -> Iterator[Document]:
        """The shard's documents in order. Raises EEVEError for a missing column, or when the stream breaks off."""
        source = self.source
        data = _dataset(source).shard(self.count, self.index)
        if source.documents:
            data = data.take(-(-source.documents // self.count))
        place, row = f"{source.path}:{source.name or 'default'}:{source.split}:{self.index}", 0
        try:
            for row, record in enumerate(data, start=1):
                for column in source.columns:
                    if column not in record:
                        raise EEVEError(
                            f"{place}, row {row}: no column {column!r}; there are {', '.join(map(repr, record))}: "
                            "set `columns`"
                        )
                    if record[column]:
                        yield Document(str(record[column]), place, row, {**record})
        except EEVEError:
            raise
        except Exception as error:  # whatever datasets, fsspec and the network raise
            raise EEVEError(f"{place}: broke off after row {row:,} ({_first_line(error)})") from None


def _dataset(source: CorpusSource):
    from datasets import load_dataset

    try:
        return load_dataset(
            source.path, source.name, split=source.split, revision=source.revision, streaming=True
        )
    except Exception as error:  # a dozen kinds, all of them about the name, the configuration or the network
        raise EEVEError(
            f"the dataset {source.path} cannot be read ({_first_line(error)}); correct path, name or split"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Piece:
    """One task's input: a shard of a source of the group `group` (its number in the mix)."""

    group: int
    shard: Shard | DatasetShard


def pieces(settings: CorpusSettings) -> list[Piece]:
    """The input in the order of the mix. Raises EEVEError if a source has nothing."""
    return [
        Piece(number, shard)
        for number, group in enumerate(settings.mix.values())
        for source in group.sources
        for shard in _for_group(source, group).pieces()
    ]


def _for_group(source: CorpusSource, group: GroupSettings) -> CorpusSource:
    """Of a template's columns the first is the one to read; the others come along as fields."""
    if group.template is None:
        return source
    return source.model_copy(update={"columns": columns_of(group.template)[:1]})


def columns_of(template: str) -> list[str]:
    """The columns that a template names in braces. Raises ValueError if it is no template."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


def read_piece(piece: Piece, group: GroupSettings) -> Iterator[Document]:
    """The piece's documents; with a template, each made from one record's columns.

    Raises EEVEError naming file and line for whatever cannot be read, or lacks a column.
    """
    for document in piece.shard.documents():
        if group.template is None:
            yield document
            continue
        columns = columns_of(group.template)
        record = {**document.fields, columns[0]: document.text}
        missing = [column for column in columns if not record.get(column)]
        if any(column not in record for column in missing):
            raise EEVEError(
                f"{document.file}, line {document.line}: no column {missing[0]!r} for the template; there are "
                f"{', '.join(map(repr, record))}"
            )
        if not missing:  # a side that is empty has nothing to align
            yield Document(group.template.format_map(record), document.file, document.line)


def texts_of(sources: list[CorpusSource]) -> Iterator[str]:
    """All texts of `sources`, one after another."""
    for source in sources:
        for shard in source.pieces():
            for document in shard.documents():
                yield document.text


def identity(piece: Piece) -> list:
    """What a step's result depends on of a piece: the source, and of a file its size and time of change."""
    shard = piece.shard
    if isinstance(shard, DatasetShard):
        return [piece.group, shard.index, shard.count, shard.source.model_dump(mode="json")]
    stat = shard.file.stat()
    return [
        piece.group,
        str(shard.file),
        stat.st_size,
        stat.st_mtime_ns,
        shard.source.model_dump(mode="json"),
    ]
