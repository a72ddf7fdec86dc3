"""The one home of tables in text: Markdown's, and plain columns for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[int] = (),
    aligned: bool = False,
) -> str:
    """A Markdown table (GitHub's and the hub's dialect), without a line break at its end.

    Args:
        head: the columns' names.
        rows: as many cells each as `head` has. Cells are written as `str` has them: escape them before (see `escaped`).
        right: columns that are set to the right, counted from 0; `range(1, len(head))` is all but the first.
        aligned: pad the cells, so that the text itself reads as a table.

    Raises ValueError for a row of another length.
    """
    cells = _as_text([head, *rows])
    widths = [max(3, width) if aligned else 0 for width in _widths(cells)]  # 3: the shortest rule
    rule = [_rule(column in right, max(3, width)) for column, width in enumerate(widths)]
    lines = [_padded(row, widths, right) for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def escaped(cell: object) -> str:
    """`cell` as text that Markdown does not take for the end of a cell."""
    return str(cell).replace("|", "\\|")


def plain_table(rows: Iterable[Sequence[object]], *, right: Collection[int] = (), gap: str = "  ") -> str:
    """Rows of text in columns as wide as their widest cell, parted by `gap`; without a line break at its end.

    Args:
        rows: as many cells each; the first may be a head.
        right: columns that are set to the right, counted from 0.

    Raises ValueError for rows of different lengths.
    """
    cells = _as_text(rows)
    widths = _widths(cells)
    return "\n".join(gap.join(_padded(row, widths, right)).rstrip() for row in cells)


def _as_text(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in rows]


def _widths(cells: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _padded(row: list[str], widths: list[int], right: Collection[int]) -> list[str]:
    return [
        cell.rjust(width) if column in right else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _rule(to_the_right: bool, width: int) -> str:
    return "-" * (width - 1) + ":" if to_the_right else "-" * width
