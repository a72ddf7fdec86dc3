"""The characters that words consist of, numbered: how compiled code knows them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Alphabet(NamedTuple):
    """The characters that words consist of, numbered from 1 in the order of code points: symbols."""

    characters: np.ndarray
    """uint32 (symbols + 1,): the code point of each symbol; the first stands for none."""

    symbols: np.ndarray
    """uint16, or uint32 for a large alphabet, (0x110000,): the symbol of each code point, 0 for one in no word."""

    boundary: int
    """The symbol with which words begin; nowhere else do they have it. -1 if there is none such."""

    bits: int
    """How many bits a symbol has."""

    each: int
    """How many symbols make a number, the first the highest, with zeros where a word has no more."""


def alphabet(characters: np.ndarray, boundary: int | None = None, written: int | None = None) -> Alphabet:
    """The alphabet of some characters.

    Args:
        characters: int64, their code points, sorted, each once.
        boundary: the code point with which words begin, one of `characters`.
        written: a code point that stands for the boundary in the text, beside itself.
    """
    kind: type[np.unsignedinteger] = np.uint16 if len(characters) < 1 << 16 else np.uint32
    symbols = np.zeros(0x110000, dtype=kind)
    symbols[characters] = np.arange(1, len(characters) + 1)
    if written is not None and boundary is not None:
        symbols[written] = symbols[boundary]
    bits = len(characters).bit_length()
    first = -1 if boundary is None else int(symbols[boundary])
    return Alphabet(np.append(0, characters).astype(np.uint32), symbols, first, bits, 63 // bits)
