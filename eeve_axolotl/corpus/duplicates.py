"""What the corpus says twice: whole documents, lines of boilerplate, and passages of the held-out text.

Near-duplicates are found by MinHash (`minhash`, and datatrove's clusters); here is what it leaves open:
exact duplicates (MinHash has no signature for a text of fewer words than its n-gram), boilerplate
lines, and leaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NewType

import numpy as np
import xxhash

from eeve_axolotl.corpus.kernels import cleaning
from eeve_axolotl.corpus.kernels import passages as kernels
from eeve_axolotl.corpus.kernels.characters import classes, points, small
from eeve_axolotl.corpus.text import small_points

# Consecutive words that two texts do not share by chance: the n-gram of GPT-3's overlap test.
LEAK_WORDS = 13
LEAK_LINE = 6  # a line of fewer words than that counts as a whole, from this many words on

PassageSet = NewType("PassageSet", np.ndarray)
"""A hash table (uint64) of passages; a plain array of them, sorted or not, is none."""


def text_hash(text: str) -> int:
    """A 64-bit hash of `text` that ignores case and how it is broken into lines."""
    characters = small_points(text)
    key = np.empty(4 * len(characters) + 1, np.uint8)
    ends = kernels.spell(characters, small(), key)  # words with a blank between them
    return xxhash.xxh3_64_intdigest(key[: ends[-1] if len(ends) else 0].data)


def line_hashes(text: str, shortest: int) -> np.ndarray:
    """The distinct hashes (uint64) of the lines of `text` with at least `shortest` characters."""
    return cleaning.distinct(cleaning.line_hashes(points(text), classes(), shortest))


def frequent(files: Sequence[Path], least: int, parts: int = 16) -> np.ndarray:
    """The hashes whose counts over all `files` add up to `least` or more, sorted.

    Args:
        files: paths without an ending. Beside each there are two arrays of one length: `.hashes.npy`
            (uint64, sorted) and `.times.npy` (int64), in how many documents each line occurs.
        least: how often a line must occur.
        parts: the range of hashes is taken in so many parts, one of them in memory at a time.
    """
    found = []
    bounds = [i * 2**64 // parts for i in range(1, parts)]
    loaded = [(np.load(file.with_suffix(".hashes.npy"), mmap_mode="r"), file) for file in files]
    for part in range(parts):
        pieces, times = [], []
        for hashes, file in loaded:
            low = np.searchsorted(hashes, np.uint64(bounds[part - 1])) if part else 0
            high = np.searchsorted(hashes, np.uint64(bounds[part])) if part < parts - 1 else len(hashes)
            pieces.append(np.asarray(hashes[low:high]))
            times.append(np.asarray(np.load(file.with_suffix(".times.npy"), mmap_mode="r")[low:high]))
        if pieces:
            unique, inverse = np.unique(np.concatenate(pieces), return_inverse=True)
            total = np.bincount(inverse, np.concatenate(times), len(unique))
            found.append(unique[total >= least])
    return np.concatenate(found) if found else np.array([], np.uint64)


def contains(sorted_hashes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each of `wanted`, whether it is one of `sorted_hashes`."""
    if not len(sorted_hashes):
        return np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(sorted_hashes, wanted), len(sorted_hashes) - 1)
    found: np.ndarray = sorted_hashes[at] == wanted
    return found


def without_lines(text: str, boilerplate: np.ndarray, shortest: int) -> str:
    """`text` without the lines whose hash is in the sorted array `boilerplate`."""
    if not len(boilerplate):
        return text
    hashes = cleaning.line_hashes(points(text), classes(), shortest)
    cut = contains(boilerplate, hashes) & (hashes != 0)
    if not cut.any():
        return text
    return "\n".join(line for line, gone in zip(text.split("\n"), cut, strict=True) if not gone)


def _passages(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the passages of `text`, and the line that each is in."""
    found: tuple[np.ndarray, np.ndarray] = kernels.passages(
        small_points(text), small(), LEAK_LINE, LEAK_WORDS
    )
    return found


def passages(text: str) -> np.ndarray:
    """Hashes (uint64) of all runs of LEAK_WORDS words within a line of `text`, and of whole shorter lines.

    Two texts share a passage if they share a hash.
    """
    return _passages(text)[0]


def without_passages(text: str, secret: PassageSet) -> str:
    """`text` without the lines that hold a passage of `secret`, which `passage_set` made."""
    hashes, line = _passages(text)
    found = kernels.which_in(hashes, secret)
    if not found.any():
        return text
    leaks = set(line[found].tolist())
    return "\n".join(line for number, line in enumerate(text.split("\n")) if number not in leaks)


def shared_passages(text: str, secret: PassageSet) -> int:
    """How many different passages of `secret`, which `passage_set` made, are in `text`."""
    hashes = passages(text)
    return len(np.unique(hashes[kernels.which_in(hashes, secret)]))


def passage_set(hashes: np.ndarray) -> PassageSet:
    """A hash table of passages, for `without_passages` and `shared_passages`."""
    return PassageSet(kernels.hash_set(hashes))


def all_passages(texts: Iterable[str]) -> np.ndarray:
    """The distinct passages of all `texts`, sorted."""
    found = [passages(text) for text in texts]
    return np.unique(np.concatenate(found)) if found else np.array([], np.uint64)


def later_copies(hashes: np.ndarray) -> np.ndarray:
    """Bool per document: whether an earlier document has the same hash."""
    _, first = np.unique(hashes, return_index=True)
    copies = np.ones(len(hashes), bool)
    copies[first] = False
    return copies
