"""The corpus as a table of distinct words and how often each occurs.

A word is the unit inside which new merges can happen: a run of the target script's letters with the
word boundary before it, if there is one. All other text tokenizes as before, so nothing of it need be kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import regex

from eeve_axolotl.errors import EEVEError

BOUNDARY = "▁"  # SentencePiece's spelling of a space


def word_pattern(scripts: list[str]) -> regex.Pattern:
    """A pattern for one word of `scripts` (Unicode script names) in text whose spaces are ▁.

    Raises EEVEError for a script that Unicode does not know.
    """
    letters = ""
    for script in scripts:
        try:
            regex.compile(rf"\p{{Script={script}}}")
        except regex.error:
            raise EEVEError(
                f"script: {script} is not a Unicode script; use names such as Hangul, Greek, Thai or Han"
            ) from None
        letters += rf"\p{{Script={script}}}"
    return regex.compile(f"{BOUNDARY}?[{letters}]+")


def count_words(texts: Iterable[str], scripts: list[str]) -> Counter[str]:
    """Distinct words of `scripts` in `texts` and their counts.

    A text begins with a word boundary, as SentencePiece puts one there.
    Raises EEVEError if there is none at all.
    """
    find = word_pattern(scripts).findall
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(find(BOUNDARY + text.replace(" ", BOUNDARY)))
    if not counts:
        raise EEVEError(f"the corpus has no text in {' or '.join(scripts)}; correct `corpus` or `script`")
    return counts
