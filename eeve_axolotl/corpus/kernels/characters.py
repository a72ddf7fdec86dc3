"""Tables that say of each code point what compiled code needs to know, made from Python's own and the libraries' rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

import numpy as np
import regex
from datatrove.utils.text import NUMBERS_PATTERN, PUNCTUATION_TRANS, TERMINAL_PUNCTUATION

ALL = 0x110000  # code points

# Bits of `classes`.
WHITE, INVISIBLE, TERMINAL, AROUND = 1, 2, 4, 8
# Bits of `letters`.
LETTER, OF_SCRIPTS = 1, 2
# Above the code point that a character becomes, in `small` and `simple`.
SEPARATOR, DIGIT, DECIMAL, SPECIAL = 1 << 24, 1 << 25, 1 << 26, 1 << 27
CHARACTER = (1 << 24) - 1

AROUND_WORDS = ".,!?;:\"'()[]…·~"
"""Punctuation that is no part of the word beside it."""

# Characters that `str.lower` treats in ways that depend on the place (final sigma), or makes two of.
_SPECIAL = [0x130, 0x3A3]
INVISIBLE_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028\u2029\u2060\ufeff\u00ad]")
"""Control characters but tab and newline; zero-width characters; the byte-order mark; soft hyphens."""


@lru_cache(maxsize=2)  # one filter after the other asks for the same text
def points(text: str) -> np.ndarray:
    """The code points of `text`: uint32, not writable."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text_of(points: np.ndarray) -> str:
    """The text of code points."""
    return points.tobytes().decode("utf-32-le", "surrogatepass")


@cache
def _everything() -> str:
    """Every character but the halves of surrogate pairs."""
    return text_of(_points_of_everything())


def _points_of_everything() -> np.ndarray:
    return np.concatenate([np.arange(0xD800, dtype=np.uint32), np.arange(0xE000, ALL, dtype=np.uint32)])


def _where(characters: Iterable[str]) -> np.ndarray:
    return np.fromiter(map(ord, characters), np.int64)


def _matches(pattern: re.Pattern[str] | regex.Pattern[str]) -> np.ndarray:
    """The code points of the characters that match `pattern`."""
    return _where("".join(match[0] for match in pattern.finditer(_everything())))


@cache
def classes() -> np.ndarray:
    """uint8 (ALL,): WHITE as `str.split` has it, INVISIBLE, TERMINAL punctuation as datatrove has it, AROUND_WORDS."""
    table = np.zeros(ALL, np.uint8)
    table[_white()] |= WHITE
    table[_matches(INVISIBLE_CHARACTERS)] |= INVISIBLE
    table[_where(TERMINAL_PUNCTUATION)] |= TERMINAL
    table[_where(AROUND_WORDS)] |= AROUND
    table.setflags(write=False)
    return table


def _white() -> np.ndarray:
    return _matches(re.compile(r"\s"))


@cache
def letters(scripts: tuple[str, ...]) -> np.ndarray:
    """uint8 (ALL,): LETTER for what `str.isalpha` says is one, and OF_SCRIPTS if it is one of the Unicode `scripts`."""
    every = np.arange(ALL, dtype=np.uint32)
    every[0xD800:0xE000] = 0
    table = np.strings.isalpha(every.view("U1")).astype(np.uint8) * np.uint8(LETTER)
    own = regex.compile("[" + "".join(rf"\p{{Script={script}}}" for script in scripts) + "]+")
    of_scripts = _matches(own)
    table[of_scripts[table[of_scripts] > 0]] |= OF_SCRIPTS
    table.setflags(write=False)
    return table


@cache
def small() -> np.ndarray:
    """uint32 (ALL,): what `str.lower` makes of each character; SEPARATOR for white space.

    SPECIAL marks the few of which one cannot say it without the text around them.
    """
    table = np.arange(ALL, dtype=np.uint32)
    plain = _everything()
    for special in _SPECIAL:
        plain = plain.replace(chr(special), " ")
    table[_points_of_everything()] = np.frombuffer(plain.lower().encode("utf-32-le"), np.uint32)
    table[_white()] = SEPARATOR
    table[_SPECIAL] = SPECIAL
    table.setflags(write=False)
    return table


@cache
def simple() -> np.ndarray:
    """uint32 (ALL,): what datatrove's `simplify_text` makes of each character, as `small` has it.

    SEPARATOR stands for punctuation too, DIGIT for what a number is made of, and DECIMAL for what may join two of them.
    """
    table = small().copy()
    table[_where(map(chr, PUNCTUATION_TRANS))] = SEPARATOR
    of_small = small() & CHARACTER
    table = np.where(table & SEPARATOR | table & SPECIAL, table, table[of_small])
    table[_matches(regex.compile(r"\p{Nd}+"))] = DIGIT
    inside_brackets = NUMBERS_PATTERN.pattern.partition("[")[2].partition("]")[0]
    table[_where(inside_brackets)] |= DECIMAL
    table.setflags(write=False)
    return table
