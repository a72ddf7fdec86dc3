"""What a report consists of, before it is Markdown or HTML: headings, paragraphs, tables, figures, listings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MISSING = "—"


class Code(str):
    """Text to show letter by letter: names, paths, tokens, fingerprints."""


class Bold(str):
    """Text to stress."""


Inline = str | Sequence[str]  # plain text, or pieces of which some are Code or Bold


def pieces(text: Inline) -> Sequence[str]:
    """The pieces of a line."""
    return [text] if isinstance(text, str) else text


@dataclass(frozen=True)
class Heading:
    """A heading; 1 is the report's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: Inline


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[Inline]


@dataclass(frozen=True)
class Table:
    """A table; columns after the first `left` ones are numbers, to the right."""

    head: Sequence[Inline]
    rows: Sequence[Sequence[Inline]]
    left: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot beside the report, what it shows in words, and its caption."""

    file: str
    alt: str
    caption: Inline


@dataclass(frozen=True)
class Listing:
    """Text with its own line breaks."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when their title is clicked; on paper they are open."""

    title: str
    blocks: Sequence[Block]


Block = Heading | Paragraph | Bullets | Table | Figure | Listing | Fold
