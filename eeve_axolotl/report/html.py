"""Blocks as one HTML file that needs nothing else: plots and letters inside it, no scripts, light, dark and print."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from eeve_axolotl.report.blocks import (
    Block,
    Bold,
    Bullets,
    Code,
    Figure,
    Fold,
    Heading,
    Listing,
    Paragraph,
    Table,
    pieces,
)
from eeve_axolotl.report.fonts import embedded

TEMPLATE = "page.html.jinja"  # beside this module
# What the template calls each kind of block, and of text.
KINDS = {
    "heading": Heading,
    "paragraph": Paragraph,
    "bullets": Bullets,
    "table": Table,
    "figure": Figure,
    "listing": Listing,
    "fold": Fold,
    "code": Code,
    "bold": Bold,
}


def render(blocks: Iterable[Block], title: str, folder: Path) -> str:
    """The page; figures are read from `folder`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests |= {name: _is(kind) for name, kind in KINDS.items()}

    def in_base64(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    told = {"blocks": list(blocks), "title": title, "pieces": pieces, "refuse": _refuse}
    template = environment.get_template(TEMPLATE)
    letters = embedded(template.render(**told, fonts=[], in_base64=lambda file: ""))
    return template.render(**told, fonts=letters, in_base64=in_base64)


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


def _refuse(block: object) -> NoReturn:
    raise TypeError(block)
