"""The corpus's side of reading: which pieces of input there are, and a piece's documents.

Reading itself, with its formats and errors, is `eeve_axolotl.sources`.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from eeve_axolotl.corpus.settings import CorpusSettings, GroupSettings
from eeve_axolotl.errors import EEVEError
from eeve_axolotl.sources import SourceSettings


@dataclass(frozen=True)
class Piece:
    """One task's input."""

    group: int
    source: SourceSettings
    part: str


@dataclass(frozen=True)
class Record:
    """`text`, and where it is from. `texts`: the fields asked for."""

    text: str
    origin: str
    texts: tuple[str, ...] = ()


def pieces(settings: CorpusSettings) -> list[Piece]:
    out = []
    for n, g in enumerate(settings.mix.values()):
        for s in g.sources:
            files = sorted(glob.glob(s.path))
            if not files:
                raise EEVEError(f"{s.path} does not exist")
            out += [Piece(n, s, f) for f in files]
    return out


def _raw(path):
    op = gzip.open if path.endswith(".gz") else open
    with op(path, "rt", encoding="utf-8") as f:
        if ".tsv" in path:
            for i, row in enumerate(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE), 2):
                yield i, row
        else:
            for i, line in enumerate(f, 1):
                yield i, json.loads(line)


def read_piece(piece: Piece, group: GroupSettings) -> Iterator[Record]:
    for i, row in _raw(piece.part):
        text = group.parallel.template.format_map(row) if group.parallel else row[piece.source.text]
        yield Record(text, f"{os.path.basename(piece.part)}:{i}")


def read_source(source: SourceSettings, fields=None) -> Iterator[Record]:
    for f in sorted(glob.glob(source.path)):
        for i, row in _raw(f):
            texts = tuple(row[x] for x in (fields or [source.text]))
            yield Record(texts[0], f"{f}:{i}", texts)


def identity(piece: Piece) -> list:
    """What a step's result depends on of a piece: the file, its size and time of change."""
    stat = os.stat(piece.part)
    return [piece.group, piece.part, stat.st_size, stat.st_mtime_ns, piece.source.model_dump(mode="json")]
