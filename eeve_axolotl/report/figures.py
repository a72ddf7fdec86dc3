"""Figures as a report writes them."""

from __future__ import annotations

from collections.abc import Sequence

from eeve_axolotl.report.blocks import MISSING


def number(value: float | None, form: str = ",") -> str:
    """A figure, or the sign for "missing"."""
    return MISSING if value is None else format(value, form)


def duration(seconds: float | None) -> str:
    """Seconds for people: 45 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def total(values: Sequence[float | None]) -> float | None:
    """The sum, None if one is missing or there are none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
