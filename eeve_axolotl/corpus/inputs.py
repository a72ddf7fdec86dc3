"""The corpus's side of reading: which pieces of input there are, and a piece's texts (`eeve_axolotl.sources`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eeve_axolotl.corpus.settings import CorpusSettings, GroupSettings, columns_of
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import Document, Shard, Source, text_of


@dataclass(frozen=True)
class Piece:
    """One task's input: a shard of a source of the group `group` (its number in the mix)."""

    group: int
    shard: Shard


def pieces(settings: CorpusSettings) -> list[Piece]:
    """The input in the order of the mix. Raises EEVEError if a source has nothing."""
    return [
        Piece(number, shard)
        for number, group in enumerate(settings.mix.values())
        for source in group.sources
        for shard in _for_group(source, group).shards()
    ]


def _for_group(source: Source, group: GroupSettings) -> Source:
    """Of a template's columns the first is the one to read; the others come along as fields."""
    if group.template is None:
        return source
    return source.model_copy(update={"columns": columns_of(group.template)[:1]})


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
        for column in columns:
            if isinstance(record[column], int | float) and not isinstance(record[column], bool):
                continue  # in a sentence a year is text
            try:
                text_of(record[column])
            except ValueError as error:
                raise EEVEError(
                    f"{document.file}, line {document.line}: the column {column!r} of the template holds {error}; write "
                    "its text out, or leave it out of the template"
                ) from None
        if not missing:  # a side that is empty has nothing to align
            yield Document(group.template.format_map(record), document.file, document.line)


def texts_of(sources: list[Source]) -> Iterator[str]:
    """All texts of `sources`, one after another."""
    for source in sources:
        for shard in source.shards():
            for document in shard.documents():
                yield document.text


def identity(piece: Piece) -> list[Any]:
    """What a step's result depends on of a piece: the source, and of a file its content."""
    return [piece.group, *piece.shard.identity()]
