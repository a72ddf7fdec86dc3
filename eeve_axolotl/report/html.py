"""Blocks as one HTML file that needs nothing else: plots inside it, no scripts, light, dark and print."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from eeve_axolotl.report.blocks import (
    Block,
    Bold,
    Bullets,
    Code,
    Figure,
    Heading,
    Inline,
    Listing,
    Paragraph,
    Table,
    pieces,
)

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --soft: #f2f2f2; --line: #bbbbbb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181c; --soft: #24272d; --line: #555a63; }
}
body { background: var(--paper); color: var(--ink); max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans KR", "Noto Sans CJK KR", "Apple SD Gothic Neo",
  "Malgun Gothic", NanumGothic, sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .6rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: left; vertical-align: top; }
th { border-bottom-width: 2px; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font-family: ui-monospace, Menlo, Consolas, "Noto Sans Mono CJK KR", NanumGothicCoding, monospace;
  font-size: .9em; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .7rem; white-space: pre-wrap; }
figure { margin: 1rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; background: #ffffff; }
figcaption { font-size: .9rem; }
@media print {
  :root { color-scheme: light; --ink: #000000; --paper: #ffffff; --soft: #f2f2f2; --line: #999999; }
  body { max-width: none; margin: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: .15rem .4rem; }
  h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""


def render(blocks: Iterable[Block], title: str, folder: Path) -> str:
    """The page; figures are read from `folder`."""
    body = "\n".join(_block(block, folder) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block, folder: Path) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{_inline(block.text)}</p>"
        case Bullets():
            return "<ul>\n" + "".join(f"<li>{_inline(item)}</li>\n" for item in block.items) + "</ul>"
        case Table():
            head = _row("th", block.head, block.left)
            rows = "\n".join(_row("td", row, block.left) for row in block.rows)
            return (
                f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
            )
        case Figure():
            data = base64.b64encode((folder / block.file).read_bytes()).decode()
            return (
                f'<figure><img alt="{escape(block.alt)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{_inline(block.caption)}</figcaption></figure>"
            )
        case Listing():
            return f"<pre>{escape(block.text)}</pre>"
    raise TypeError(block)


def _row(tag: str, cells: Iterable[Inline], left: int) -> str:
    made = (
        f"<{tag}>{_inline(cell)}</{tag}>"
        if number < left
        else f'<{tag} class="number">{_inline(cell)}</{tag}>'
        for number, cell in enumerate(cells)
    )
    return f"<tr>{''.join(made)}</tr>"


def _inline(text: Inline) -> str:
    return "".join(_piece(piece) for piece in pieces(text))


def _piece(piece: str) -> str:
    tag = "code" if isinstance(piece, Code) else "strong" if isinstance(piece, Bold) else ""
    text = escape(piece).replace("\n", "<br>")
    return f"<{tag}>{text}</{tag}>" if tag else text
