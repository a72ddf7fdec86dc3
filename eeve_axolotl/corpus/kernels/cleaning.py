"""The normal form of a text, and what filters ask of its characters and lines: one look at each character.

points   uint32, the code points of a text
classes  uint8 (ALL,), the table `characters.classes`
"""

from __future__ import annotations

import numpy as np
from numba import njit

from eeve_axolotl.corpus.kernels.characters import INVISIBLE, LETTER, OF_SCRIPTS, TERMINAL, WHITE
from eeve_axolotl.corpus.kernels.hashes import spread, with_character

_TAB, _NEW_LINE, _RETURN, _BLANK = 9, 10, 13, 32


@njit(nogil=True, cache=True)
def clean(points, classes, cleaned):
    """`points` without invisible characters, trailing blanks, runs of empty lines, and white space around them.

    Every end of a line becomes a line feed.

    Args:
        cleaned: uint32, as long as `points`: the result is written here.

    Returns where it begins and ends in `cleaned`, and whether it is another text.
    """
    size, changed = 0, False
    for n in range(len(points)):
        point = points[n]
        if point == _RETURN:
            changed = True
            if n + 1 < len(points) and points[n + 1] == _NEW_LINE:
                continue
            point = np.uint32(_NEW_LINE)
        if point == _NEW_LINE:
            while size and (cleaned[size - 1] == _BLANK or cleaned[size - 1] == _TAB):
                size -= 1
            if size > 1 and cleaned[size - 1] == _NEW_LINE and cleaned[size - 2] == _NEW_LINE:
                continue
        elif classes[point] & INVISIBLE:
            continue
        cleaned[size] = point
        size += 1
    begin, end = 0, size
    while end and classes[cleaned[end - 1]] & WHITE:
        end -= 1
    while begin < end and classes[cleaned[begin]] & WHITE:
        begin += 1
    return begin, end, changed or end - begin != len(points)


@njit(nogil=True, cache=True)
def letters(points, table):
    """How many characters are letters, and how many of these are of the scripts: `table` is `characters.letters`."""
    all_of_them, of_scripts = 0, 0
    for point in points:
        all_of_them += table[point] & LETTER
        of_scripts += (table[point] & OF_SCRIPTS) // OF_SCRIPTS
    return all_of_them, of_scripts


@njit(inline="always")
def _stripped(points, classes, begin, end):
    """Where a line begins and ends without the white space around it."""
    while end > begin and classes[points[end - 1]] & WHITE:
        end -= 1
    while begin < end and classes[points[begin]] & WHITE:
        begin += 1
    return begin, end


@njit(inline="always")
def _end_of_line(points, begin):
    end = begin
    while end < len(points) and points[end] != _NEW_LINE:
        end += 1
    return end


@njit(nogil=True, cache=True)
def fragments(points, classes, short):
    """How many lines are not empty, how many of these have at most `short` characters, and how many end no sentence."""
    lines, short_ones, unfinished = 0, 0, 0
    at = 0
    while at <= len(points):
        stop = _end_of_line(points, at)
        begin, end = _stripped(points, classes, at, stop)
        if begin < end:
            lines += 1
            short_ones += end - begin <= short
            unfinished += classes[points[end - 1]] & TERMINAL == 0
        at = stop + 1
    return lines, short_ones, unfinished


@njit(nogil=True, cache=True)
def line_hashes(points, classes, shortest):
    """The hash (uint64) of each line of `shortest` characters or more, without white space around it; of another 0."""
    lines = 1
    for point in points:
        lines += point == _NEW_LINE
    hashes = np.zeros(lines, np.uint64)
    at = 0
    for line in range(lines):
        stop = _end_of_line(points, at)
        begin, end = _stripped(points, classes, at, stop)
        if end - begin >= shortest:
            number = np.uint64(0)
            for n in range(begin, end):
                number = with_character(number, points[n])
            hashes[line] = max(spread(number), np.uint64(1))
        at = stop + 1
    return hashes


@njit(nogil=True, cache=True)
def distinct(hashes):
    """Those of `hashes` (uint64) that are not 0, each once, sorted."""
    return np.unique(hashes[hashes != 0])
