"""Letters of plots, by a font with Hangul where one is installed, else token ids instead; and letters for the page."""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

HANGUL = 0xAC00  # 가
BEYOND_LATIN = 0x250  # every machine has a font for what comes before
PREFERRED = (
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Noto Sans CJK JP",  # the same glyphs for Hangul; matplotlib sees only a collection's first face
    "NanumGothic",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "UnDotum",
)
LATIN = "DejaVu Sans"  # comes with matplotlib
PACKAGE = "koreanize_matplotlib"  # carries NanumGothic; its code, which changes matplotlib, is not imported


@dataclass(frozen=True)
class Fonts:
    """The families that plots use, in order, and every character that they have."""

    families: tuple[str, ...]
    characters: frozenset[int]

    def can_draw(self, text: str) -> bool:
        """Whether no character of `text` would come out as a box."""
        return all(ord(character) in self.characters for character in text)

    def token(self, token: str, ids: Mapping[str, int]) -> str:
        """The token itself if it can be drawn, else its id; "?" where its id is not known."""
        if token.strip() and self.can_draw(token):
            return token
        return f"#{ids[token]}" if token in ids else "?"


@functools.lru_cache(maxsize=1)
def fonts() -> Fonts:
    """The fonts of this machine."""
    hangul = _hangul_family()
    families = (LATIN, hangul) if hangul else (LATIN,)
    return Fonts(families, frozenset().union(*map(_characters, families)))


def embedded(text: str) -> list[str]:
    """What plots' fonts have of the letters of `text` beyond Latin, as WOFF files in base64, for a page on any machine."""
    wanted = {ord(character) for character in text if ord(character) >= BEYOND_LATIN}
    found = []
    for family in fonts().families:
        there = wanted & _characters(family)
        if there:
            found.append(_subset(_path(family), there))
        wanted -= there
    return found


def _subset(path: str, characters: set[int]) -> str:
    from fontTools import subset, ttLib

    # It warns of each table that a page has no use for.
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    options = subset.Options(flavor="woff", layout_features=["kern", "ccmp", "mark", "mkmk"], hinting=False)
    font = ttLib.TTFont(path, fontNumber=0, recalcTimestamp=False)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=characters)
    cutter.subset(font)
    font.flavor = "woff"
    written = io.BytesIO()
    font.save(written)
    return base64.b64encode(written.getvalue()).decode()


def _hangul_family() -> str | None:
    """The family of a font with U+AC00: a known one, else any; None if there is none."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in (*font_manager.findSystemFonts(), *_packaged()):  # installed since matplotlib last looked
        if path not in known:
            _or_nothing(font_manager.fontManager.addfont, path)
    families: dict[str, str] = {}
    for entry in font_manager.fontManager.ttflist:
        if not entry.name.startswith("Last Resort"):  # it has a box for every character there is
            families.setdefault(entry.name, entry.fname)
    for name in (*PREFERRED, *sorted(families)):
        if name in families and HANGUL in _charmap(families[name]):
            return name
    return None


def _packaged() -> list[str]:
    """The font that a dependency of ours carries, for machines without one."""
    found = importlib.util.find_spec(PACKAGE)
    places = (found and found.submodule_search_locations) or []
    return [str(path) for place in places for path in Path(place).glob("fonts/NanumGothic.ttf")]


def _characters(family: str) -> frozenset[int]:
    return _charmap(_path(family))


def _path(family: str) -> str:
    from matplotlib import font_manager

    return str(font_manager.findfont(font_manager.FontProperties(family=family)))


@functools.cache
def _charmap(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(_or_nothing(lambda: FT2Font(path).get_charmap()) or ())


def _or_nothing(call: Callable, *args):
    """What `call` returns, or None for a font file that FreeType cannot read."""
    try:
        return call(*args)
    except (OSError, RuntimeError, ValueError):
        return None
