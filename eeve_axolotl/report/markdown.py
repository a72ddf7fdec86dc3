"""Blocks as Markdown (GitHub's and the hub's dialect)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from eeve_axolotl.report.blocks import (
    Block,
    Bold,
    Bullets,
    Code,
    Figure,
    Fold,
    Heading,
    Inline,
    Listing,
    Paragraph,
    Table,
    pieces,
)
from eeve_axolotl.tables import escaped, markdown_table


def render(blocks: Iterable[Block]) -> str:
    """The whole text; ends with one line break."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_inline(block.text)}"
        case Paragraph():
            return _inline(block.text)
        case Bullets():
            return "\n".join(f"- {_inline(item)}" for item in block.items)
        case Table():
            head, *rows = [[escaped(_inline(cell)) for cell in row] for row in (block.head, *block.rows)]
            return markdown_table(head, rows, right=range(block.left, len(head)))
        case Figure():
            return f"![{_inline(block.alt)}]({block.file})\n\n{_inline(block.caption)}"
        case Listing():
            fence = "`" * max(3, _longest_backticks(block.text) + 1)
            return f"{fence}text\n{block.text}\n{fence}"
        case Fold():
            inside = "\n\n".join(_block(each) for each in block.blocks)
            return f"<details>\n<summary>{_inline(block.title)}</summary>\n\n{inside}\n\n</details>"
    raise TypeError(block)


def _inline(text: Inline) -> str:
    return "".join(_piece(piece) for piece in pieces(text))


def _piece(piece: str) -> str:
    line = re.sub(r"\s*\n\s*", " ⏎ ", piece.strip("\n"))
    if isinstance(piece, Code):
        fence = "`" * (_longest_backticks(line) + 1)
        pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
        return f"{fence}{pad}{line}{pad}{fence}"
    escaped = re.sub(r"([\\`*\[\]<>])", r"\\\1", line)
    return f"**{escaped}**" if isinstance(piece, Bold) else escaped


def _longest_backticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
